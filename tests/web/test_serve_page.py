"""The page of a served model in a browser: pictures are dropped, rows are filled in, bars appear."""

import json

import pytest
from browser import chromium, errors, requested
from PIL import Image
from served import Server
from small_bundles import CLASSES, image_bundle, table_bundle

By = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

DROP = """
const [data, name] = arguments, transfer = new DataTransfer();
transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, {type: "image/png"}));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", {bubbles: true, dataTransfer: transfer}));
"""


def wait(driver, selector, count=1):
    WebDriverWait(driver, 20).until(lambda driver: len(driver.find_elements(By.CSS_SELECTOR, selector)) >= count)
    return driver.find_elements(By.CSS_SELECTOR, selector)


def check_quiet(driver, server):
    """No error in the console, and no request to anywhere else."""
    assert errors(driver) == []
    own = f"http://{server.host}:{server.port}/"
    assert [url for url in requested(driver) if not url.startswith((own, "data:", f"blob:{own}"))] == []
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_picture_is_dropped_and_bars_appear(tmp_path):
    Image.effect_noise((8, 8), 90).convert("RGB").save(tmp_path / "a picture.png")
    with chromium(width=390) as driver, Server(image_bundle(tmp_path / "bundle")) as server:
        driver.get(f"http://{server.host}:{server.port}/")
        wait(driver, "#work:not([hidden])")
        driver.find_element(By.ID, "files").send_keys(str(tmp_path / "a picture.png"))
        bars = wait(driver, ".bars li", 3)
        [expected] = server.predict((tmp_path / "a picture.png").read_bytes())[1]["predictions"]
        shown = [bar.text.split("\n") for bar in bars]
        assert shown == [[one["label"], f"{100 * one['probability']:.2f} %"] for one in expected["top"]]
        assert {label for label, _ in shown} == set(CLASSES)
        wait(driver, "article img")
        curl = driver.find_element(By.ID, "curl").text
        assert curl == f"curl --data-binary '@a picture.png' 'http://127.0.0.1:{server.port}/predict'"
        driver.execute_script(DROP, "aGVsbG8gdGhlcmU=", "hello.png")
        [failed] = wait(driver, "article.failed")
        assert failed.text == "hello.png\nnot an image (it begins with b'hello there')"
        assert [entry for entry in errors(driver) if "422" not in entry] == []  # chromium logs such an answer too
        check_quiet(driver, server)


@pytest.mark.slow
def test_a_row_is_filled_in(tmp_path):
    with chromium() as driver, Server(table_bundle(tmp_path / "bundle")) as server:
        driver.get(f"http://{server.host}:{server.port}/")
        wait(driver, "#rows [name]", 2)
        driver.find_element(By.NAME, "weight").send_keys("2.5")
        driver.find_element(By.CSS_SELECTOR, "#rows button").click()
        assert wait(driver, "#answers dd")[0].text == "5"  # twice the weight, and 0 for the first shop
        command = driver.find_element(By.ID, "curl").text
        assert json.loads(command.split("'")[1]) == [{"weight": "2.5", "shop": "north"}]
        driver.find_element(By.NAME, "weight").clear()
        driver.find_element(By.CSS_SELECTOR, "#rows button").click()
        assert wait(driver, "#answers .soft")[0].text == "filled in, for no value or a new one: weight"
        check_quiet(driver, server)


@pytest.mark.slow
def test_a_token_is_asked_for(tmp_path):
    (tmp_path / "token").write_text("s3cret")
    with chromium() as driver, Server(image_bundle(tmp_path / "b"), "--token-file", tmp_path / "token") as server:
        driver.get(f"http://{server.host}:{server.port}/")
        wait(driver, "#access:not([hidden])")
        driver.find_element(By.ID, "token").send_keys("s3cret\n")
        wait(driver, "#work:not([hidden])")
        assert driver.find_element(By.ID, "name").text == "net"
