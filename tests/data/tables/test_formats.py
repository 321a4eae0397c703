"""How files are written that people have: what is found, and how it is said."""

import codecs

import polars as pl
import pytest

from trainkit.data.tables import open_table
from trainkit.errors import DataError, ProblemsError

PLAIN = "a,b,c\n1,x,2.5\n2,y,3.5\n"


def read(path, **options):
    table = open_table(str(path), **options)
    frame = pl.concat([block.frame for block in table.blocks()])
    return table, [list(frame.columns), *map(list, frame.rows())]


@pytest.mark.parametrize(
    ("text", "said", "rows"),
    [
        ("sep=;\na;b\n1,5;x\n", "semicolon, UTF-8, decimal comma, 1 line above the header skipped", "a b|1,5 x"),
        ('"sep=\t"\r\na\tb\r\n1\tx\r\n', "tab, UTF-8, decimal point, 1 line above the header skipped", "a b|1 x"),
        ("x;y\n1,5;2,5\n3;4,5\n", "semicolon, UTF-8, decimal comma", "x y|1,5 2,5|3 4,5"),
        ("x;y\n1,500;2,500\n", "semicolon, UTF-8, decimal comma", "x y|1,500 2,500"),
        ('x,y\n"1,5","2,5"\n', "comma, UTF-8, decimal comma", "x y|1,5 2,5"),
        ("# by x\n# more\na,b\n1,2\n", "comma, UTF-8, decimal point, 2 lines above the header skipped", "a b|1 2"),
        ("# a b c\n1 2 3\n4 5 6\n", "blanks, UTF-8, decimal point", "a b c|1 2 3|4 5 6"),
        ("##x\n#CHROM\tPOS\n1\t2\n", "tab, UTF-8, decimal point, 1 line above the header skipped", "CHROM POS|1 2"),
        ("Report\n\na,b,c\n1,2,3\n", "comma, UTF-8, decimal point, 2 lines above the header skipped", "a b c|1 2 3"),
        (
            "Report,,\n,,\na,b,c\n1,2,3\n",
            "comma, UTF-8, decimal point, 2 lines above the header skipped",
            "a b c|1 2 3",
        ),
        (
            '"Source","WDI",\n\n"Country","1960","1961","1962",\n"A","1","2","3",\n"B","","3","4",\n',
            "comma, UTF-8, decimal point, 2 lines above the header skipped",
            "Country 1960 1961 1962 Unnamed:_4|A 1 2 3 -|B - 3 4 -",
        ),
        ("a,b,c\n1,2,3,\n4,5,6,\n", "comma, UTF-8, decimal point", "a b c Unnamed:_3|1 2 3 -|4 5 6 -"),
        ("a,b,c,\n1,2,3\n4,5,6\n", "comma, UTF-8, decimal point", "a b c|1 2 3|4 5 6"),
        (
            '"a" "b"\n"r1" 1 2.5\n"r2" 2 3\n',
            "blanks, UTF-8, decimal point, a cell more in each row than in the header: row names",
            "Unnamed:_0 a b|r1 1 2.5|r2 2 3",
        ),
        ("  x   y  z\n  1  2.5   3\n 10 20\t30 \n\n", "blanks, UTF-8, decimal point", "x y z|1 2.5 3|10 20 30"),
        ('x  y\t"n"\n1  2\t"a b"\n3  4\t"c"\n', "blanks, UTF-8, decimal point", "x y n|1 2 a_b|3 4 c"),
        ("a,b\n'x,1','y'\n'it''s',z\n", "comma, quote ', UTF-8, decimal point", "a b|x,1 y|it's z"),
        ("a,b\nit's,y\nrock 'n' roll,z\n", "comma, UTF-8, decimal point", "a b|it's y|rock_'n'_roll z"),
        ('i,x\n5" pipe,1\n3" "fine",2\n', "comma, UTF-8, decimal point", 'i x|5"_pipe 1|3"_"fine" 2'),
        ('a, "b"\n1, "x, y"\n2, "z"\n', "comma, UTF-8, decimal point", "a b|1 x,_y|2 z"),
        (
            'a,b\n1,"x \\"y, z\\""\n2,"z"\n',
            'comma, quotes within cells as \\", UTF-8, decimal point',
            'a b|1 x_"y,_z"|2 z',
        ),
        ('a,b\n1,C:\\x\n2,"C:\\y"\n', "comma, UTF-8, decimal point", "a b|1 C:\\x|2 C:\\y"),
        ("x y\n1,5 2,5\n3,25 4,5\n", "blanks, UTF-8, decimal comma", "x y|1,5 2,5|3,25 4,5"),
        (
            "Messung 2024\n\nx;preis\n0,5;1.234,50 €\n1,5;2,00 €\n",
            "semicolon, UTF-8, decimal comma, 2 lines above the header skipped",
            "x preis|0,5 1.234,50_€|1,5 2,00_€",
        ),
        (
            "Log 1\nd,y\n2020-01-01 10:00,5\n2020-01-02 10:00,6\n",
            "comma, UTF-8, decimal point, 1 line above the header skipped",
            "d y|2020-01-01_10:00 5|2020-01-02_10:00 6",
        ),
        ("a\n1\n\n2\n", "comma, UTF-8, decimal point", "a|1|2"),
        ("text\nhello world\nfoo bar baz\n", "comma, UTF-8, decimal point", "text|hello_world|foo_bar_baz"),
        ("id,tags\n1,a|b\n2,c|d\n", "comma, UTF-8, decimal point", "id tags|1 a|b|2 c|d"),
        ("a^b\n1^2\n", "'^', UTF-8, decimal point", "a b|1 2"),
        ("a\x01b\n1\x012\n", r"'\x01', UTF-8, decimal point", "a b|1 2"),
        ("0,1,2,label\n5,6,7,x\n", "comma, UTF-8, decimal point", "0 1 2 label|5 6 7 x"),
        (",0,1\n0,1.5,2.5\n", "comma, UTF-8, decimal point", "Unnamed:_0 0 1|0 1.5 2.5"),
        ("land,1990,1991\nA,5,6\n", "comma, UTF-8, decimal point", "land 1990 1991|A 5 6"),
        ('"a\nb",c\n1,2\n', "comma, UTF-8, decimal point", "a\nb c|1 2"),
        ("a,b\n1,2\n,\n", "comma, UTF-8, decimal point", "a b|1 2|- -"),
    ],
)
def test_layouts(tmp_path, text, said, rows):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    table, found = read(path)
    assert table.format.describe() == f"delimiter {said}"
    shown = [[cell.replace(" ", "_") if cell is not None else "-" for cell in row] for row in found]
    assert "|".join(" ".join(row) for row in shown) == rows
    assert table.place(len(found) - 2) == f"{path}:{len(text.rstrip().splitlines())}"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(tmp_path, line_end, last):
    text = (PLAIN if last else PLAIN[:-1]).replace("\n", line_end)
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert read(tmp_path / "t.csv")[1] == [["a", "b", "c"], ["1", "x", "2.5"], ["2", "y", "3.5"]]


@pytest.mark.parametrize(
    ("mark", "encoding", "said"),
    [
        (codecs.BOM_UTF8, "utf-8", "UTF-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16-LE"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16-BE"),
        (b"", "utf-16-le", "UTF-16-LE"),
        (b"", "utf-16-be", "UTF-16-BE"),
        (b"", "cp1252", "Windows-1252"),
    ],
)
def test_encodings(tmp_path, mark, encoding, said):
    path = tmp_path / "t.csv"
    path.write_bytes(mark + "naïve,prix\ncafé,5 €\nüber,6 €\n".encode(encoding))
    table, rows = read(path)
    assert rows == [["naïve", "prix"], ["café", "5 €"], ["über", "6 €"]]
    assert said in table.format.describe()


def test_the_first_accent_may_come_late(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(("a,b\n" + "1,x\n" * 300_000 + "2,é\n").encode("cp1252"))
    assert read(path)[1][-1] == ["2", "é"]


def test_an_encoding_that_cannot_be_guessed_is_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("имя,возраст\nИван,5\nМария,6\n".encode("cp1251"))
    with pytest.raises(DataError, match=r"t\.csv is not UTF-8, and no West European text; give the encoding in which"):
        read(path)
    assert read(path, encoding="cp1251")[1][1] == ["Иван", "5"]


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("cp1251", "Иван Петров,5"),
        ("koi8-r", "Иван Петров,5"),
        ("cp1253", "Γιώργος,Αθήνα"),
        ("gb18030", "张伟,北京市朝阳区"),
        ("big5", "陳先生,臺北市"),
        ("shift_jis", "山田さん,とうきょう"),
        ("euc_kr", "김철수,서울특별시"),
    ],
)
def test_the_encodings_that_a_text_may_have_are_shown_with_a_line_of_it(tmp_path, encoding, line):
    path = tmp_path / "t.csv"
    path.write_bytes(f"a,b\n{line}\n{line}\n".encode(encoding))
    with pytest.raises(DataError) as caught:
        read(path)
    assert f"{encoding}: {line}" in str(caught.value)


def test_one_bad_byte_in_utf8_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("n,x\ncafé,1\nüß,2\nöä,3\n".encode() + b"caf\xe9,4\n")
    with pytest.raises(DataError, match=r"t\.csv:5: the byte 0xe9 is not UTF-8, as the rest of the file is"):
        read(path)


@pytest.mark.parametrize(("text", "line"), [("naïve,b\n1,2\n", 1), ("a,b\n1,2\n\n3,é\n", 4)])
def test_a_wrong_encoding_is_named_with_its_line(tmp_path, text, line):
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match=rf"t\.csv:{line}: the byte 0x.. is not UTF-8; give the encoding"):
        read(tmp_path / "t.csv", encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "'5.1' stands above numbers"),
        ("p,x,s\ne,x,s\ne,b,s\n", "'x' is also a value of its column"),
        ("1,2,5\n3,4,5\n6,1,2\n", "'1' stands above numbers"),
    ],
)
def test_a_first_line_that_looks_like_data_is_a_question(tmp_path, text, reason):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ProblemsError, match=rf"dataset\.header: .*:1: this line may be data .*{reason}.*header: false"):
        read(path)
    assert read(path, header=True)[1][0] == text.split("\n")[0].split(",")
    table, rows = read(path, header=False)
    assert rows[:2] == [["column_1", "column_2", "column_3"], text.split("\n")[0].split(",")]
    assert table.place(0) == f"{path}:1"
    assert read(path, base=table.format)[1] == rows


def test_the_question_names_the_line_below_the_titles(tmp_path):
    rows = "".join(f"{row}.5,2,3,4,5,6,7,8,9\n" for row in range(20))
    (tmp_path / "t.csv").write_text("20,8,malignant,benign\n" + rows)
    with pytest.raises(ProblemsError, match=r"t\.csv:2: this line may be data and no header"):
        read(tmp_path / "t.csv")
    assert len(read(tmp_path / "t.csv", header=False)[1]) == 21


def test_a_title_above_rows_without_a_header(tmp_path):
    (tmp_path / "t.csv").write_text("|1x3 Cross validator\n25, Private, 226802, <=50K.\n38, Private, 89814, <=50K.\n")
    table, rows = read(tmp_path / "t.csv", header=False)
    assert rows[1] == ["25", "Private", "226802", "<=50K."]
    assert table.format.describe() == "delimiter comma, UTF-8, decimal point, no header, 1 line above the rows skipped"


def test_an_unknown_encoding_is_named(tmp_path):
    (tmp_path / "t.csv").write_text(PLAIN)
    with pytest.raises(ProblemsError, match=r"dataset\.encoding: there is no encoding 'utf-99'"):
        read(tmp_path / "t.csv", encoding="utf-99")


def test_a_first_line_of_counts_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("569,2,malignant,benign\n1.5,2.5,3.5,4,5\n1,2,3,4,5\n")
    with pytest.raises(
        DataError, match=r"t\.csv:1: this line has 4 cells, and the rows below have 5; if it is no header"
    ):
        read(tmp_path / "t.csv")


def test_what_is_given_is_taken(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b,c\n1;2,5\n")
    assert read(path, delimiter=",")[1] == [["a;b", "c"], ["1;2", "5"]]
    assert read(path, delimiter=";", decimal=".")[0].format.describe() == "delimiter semicolon, UTF-8, decimal point"


def test_a_header_longer_than_the_first_look(tmp_path):
    names = [f"{'column' * 20}{i}" for i in range(10_000)]
    (tmp_path / "t.csv").write_text(",".join(names) + "\n" + ",".join("1" * 10_000) + "\n")
    assert read(tmp_path / "t.csv")[1][0] == names
