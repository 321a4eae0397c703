"""``trainkit data``: what the cache holds, freeing it, and what augmentation does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import ConfigFile, Json, Quiet, Set, Unset, load
from trainkit.errors import UserError
from trainkit.wording import counted, size_text

if TYPE_CHECKING:
    from trainkit.data.cache import Entry

app = typer.Typer(help="Show and free the cached data sets; preview augmentation.", no_args_is_help=True)


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the cached arrays, the newest first."""
    from trainkit.data import cache

    folder = cache.cache_root()
    entries = cache.list_entries(folder)
    total = sum(entry.num_bytes for entry in entries)
    if as_json:
        console.print_json({"folder": str(folder), "bytes": total, "entries": list(map(_describe, entries))})
        return
    for entry in entries:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
        print(f"{entry.key[:12]}  {size_text(entry.num_bytes):>9}  {made}  {entry.label}")
    console.say(f"{counted(len(entries), 'entry')}, {size_text(total)} in {folder}")


@app.command("clear")
def clear_command(
    keys: list[str] = typer.Argument(None, help="Keys, or their first digits, as listed; all when left out."),
    as_json: Json = False,
) -> None:
    """Remove cached arrays. They are built again when a run needs them."""
    from trainkit.data import cache

    folder = cache.cache_root()
    known = [entry.key for entry in cache.list_entries(folder)]
    for key in keys or []:
        if len(key) < 4 or not any(name.startswith(key) for name in known):
            raise UserError(
                f"no cached entry has the key {key!r}; trainkit data list shows the keys (4 digits or more)"
            )
    removed = cache.clear_entries(folder, keys or None)
    total = sum(entry.num_bytes for entry in removed)
    if as_json:
        console.print_json({"folder": str(folder), "bytes": total, "removed": list(map(_describe, removed))})
    else:
        print(f"removed {counted(len(removed), 'entry')}, {size_text(total)}, from {folder}")


def _describe(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "label": entry.label,
        "bytes": entry.num_bytes,
        "created": entry.created,
        "path": str(entry.path),
    }


@app.command()
def preview(
    config: ConfigFile,
    set_: Set = None,
    unset: Unset = None,
    output: Annotated[Path | None, typer.Option(help="The PNG file; preview_NAME.png when left out.")] = None,
    images: Annotated[int, typer.Option(min=1, max=64, help="How many images.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, max=8, help="How many epochs' versions of each.")] = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw an augmented training batch next to the originals into a PNG file."""
    loaded = load(config, set_, unset, quiet=quiet)

    from trainkit.workflows.preview import preview as draw_preview

    path = output or Path(f"preview_{loaded.name}.png")
    with console.frontend(quiet=quiet) as frontend:
        draw_preview(loaded, path, num_images=images, epochs=epochs, frontend=frontend)
    if as_json:
        console.print_json({"file": str(path)})
    else:
        print(path)
