"""The report's page: what the command writes, and what a browser makes of it."""

import base64
import csv
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import Seen, visit
from conftest import run_script
from report_helpers import row, rows, write_evaluation, write_run

from scout.config import MissionConfig
from scout.report.__main__ import main

EVIL = '<script>alert(1)</script> & "quotes" \'n $x$'


@pytest.fixture(scope="module")
def folders(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs to report on: one that was trained; three seeds; a sweep of 18 configs; and everything mixed."""
    base = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        metrics = [row(n, episode_return=n + seed, held_out=n, low=n - 1, high=n + 1) for n in range(1, 41)]
        write_run(base / "seeds" / str(seed), metrics, seed=seed)
    for number in range(18):
        rate, clip = 10.0 ** -(1 + number % 6), (0.1, 0.2, 0.3)[number // 6]
        metrics = rows([number % 6 + n / 10 for n in range(40)])
        write_run(base / "sweep" / str(number), metrics, optimizer={"learning_rate": rate}, trainer={"clip_coef": clip})
    mix = base / "mix"
    film = write_run(mix / EVIL, rows(range(40)), state="failed", reason=EVIL) / "film.mp4"
    film.write_bytes(b"a film")
    write_run(mix / "silent", [row(1), row(2)], seed=2)
    write_run(mix / "begun", [], seed=3, state="running")
    write_run(mix / "other", rows(range(10)), mission={"max_steps": 50, "name": "a" * 100})
    cut = mix / "silent/metrics.jsonl"
    cut.write_bytes(cut.read_bytes()[:-9])
    old = write_run(mix / "old", []) / "config.yaml"
    old.write_text(f"{EVIL}: 1\n")
    mission = MissionConfig(max_steps=25).model_dump()
    write_evaluation(mix / "judged", {"random": [1, 2] * 8, EVIL: [3]}, policies=["random"], mission=mission)
    write_evaluation(mix / "lost", {"/gone": [3]}, checkpoint="/gone")
    return {"real": finished_run, "seeds": base / "seeds", "sweep": base / "sweep", "mix": mix}


@pytest.fixture(scope="module")
def pages(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each of them, made by the command."""
    made = {}
    for name, folder in folders.items():
        output = tmp_path_factory.mktemp("pages") / name
        assert main([str(folder), "--output", str(output)]) == 0
        made[name] = output / "index.html"
    return made


@pytest.fixture(scope="module")
def seen(pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Each page in a browser, on a phone and on a wide screen: `mix 390`."""
    wanted = {f"{name} {width}": (path, width) for name, path in pages.items() for width in (390, 1280)}
    return visit(wanted, tmp_path_factory.mktemp("browser"))


# -- in a browser ------------------------------------------------------------------------------------------------------


def test_every_picture_is_shown(seen: dict[str, Seen], pages: dict[str, Path]) -> None:
    """Each has loaded, as wide as it was drawn, and there are as many as files beside the page."""
    for name, page in seen.items():
        files = list((pages[name.split()[0]].parent / "pictures").glob("*.png"))
        assert page.images == [720] * len(files), name
    assert len(seen["real 390"].images) >= 3


def test_nothing_is_fetched_and_nothing_forbidden(seen: dict[str, Seen]) -> None:
    """A page asks for nothing that it does not hold, and keeps to its own policy."""
    for name, page in seen.items():
        assert (page.requests, page.violations) == ([], []), name


def test_no_page_is_wider_than_a_phone(seen: dict[str, Seen]) -> None:
    """Only tables are, and these scroll within their boxes."""
    for name, page in seen.items():
        assert page.width == int(name.split()[1])
        assert page.content_width <= page.width, name
        assert page.beyond == [], name


def test_names_of_runs_are_text(seen: dict[str, Seen]) -> None:
    """Tags in a folder's name, in a reason, in a config and in a policy's name are shown and not obeyed."""
    page = seen["mix 1280"]
    assert page.text.count(EVIL) >= 5, "reason, name of the failed run, unreadable config, policy, row of the run"
    assert "script" not in page.elements


# -- what is in the page -----------------------------------------------------------------------------------------------


def text_of(page: Path) -> str:
    """The page's text without pictures and tags, cells apart."""
    plain = re.sub(r'src="[^"]*"|<style>.*?</style>', "", page.read_text(), flags=re.DOTALL)
    return unescape(re.sub(r"</t[dh]>", " | ", re.sub(r"<(?!/t[dh])[^>]*>", "", plain)))


def test_a_page_holds_everything_itself(pages: dict[str, Path]) -> None:
    """No address of a network in it, no script, a policy that forbids all but its own pictures and styles."""
    for page in pages.values():
        text = page.read_text()
        assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
        assert not re.search(r"""(src|href)=["']?(https?:|//)|url\(|@import|<script""", text)
        assert all(re.findall(r'<img [^>]*alt="([^"]*)"', text)), "a picture without words for it"


def test_pictures_beside_the_page_are_those_in_it(pages: dict[str, Path]) -> None:
    """The same bytes."""
    page = pages["mix"]
    embedded = re.findall(r"data:image/png;base64,([^\"]*)", page.read_text())
    files = {path.read_bytes() for path in (page.parent / "pictures").glob("*.png")}
    assert {base64.b64decode(data) for data in embedded} == files


def test_states_reasons_and_what_was_left_out_are_told(pages: dict[str, Path]) -> None:
    """Of failed and killed runs, of damaged lines, of runs without returns, of configs of another version."""
    text = text_of(pages["mix"])
    assert "Training runs: 2 finished, 1 failed, 1 killed. Evaluations: 2." in text
    assert "killed | 1 | its process is gone without a word" in text
    assert "lines of its metrics that could not be read: 1" in text
    assert "no whole episode ended" in text
    assert re.search(r"silent \| 2 \| finished \| 100 \| - \| - \|", text)
    assert "Could not be read" in text
    assert "config.yaml is not a config of this version" in text


def test_evaluations_are_listed(pages: dict[str, Path]) -> None:
    """With episodes, mean and interval; those whose mission is not known, apart; baselines in the final table, too."""
    text = text_of(pages["mix"])
    assert "random | 16 | 1.50 | 1.25 to 1.75 | judged" in text
    assert re.search(r"mission is not known.*?/gone \| 1 \| 3.00 \| - \| lost", text, re.DOTALL)
    assert "random | 1.50 | 1.25 to 1.75 |  |  | 16 episodes" in text


def test_missions_have_sections_of_their_own(pages: dict[str, Path]) -> None:
    """With links to them at the top, and pictures of their own."""
    page = pages["mix"].read_text()
    assert len(re.findall(r'<h2 id="mission\d">', page)) == 2
    assert 'href="#mission2"' in page
    names = {path.name.split("_")[0] for path in (pages["mix"].parent / "pictures").glob("*.png")}
    assert names == {"mission1", "mission2"}


def test_the_link_to_a_film_leads_to_it(pages: dict[str, Path]) -> None:
    """From the page's folder, whatever letters the run's name has; the film is not in the page."""
    (address,) = re.findall(r'<a href="([^"#]*)">film</a>', pages["mix"].read_text())
    assert (pages["mix"].parent / unquote(unescape(address))).read_bytes() == b"a film"


def test_the_final_table_is_sorted_and_says_what_final_is(pages: dict[str, Path]) -> None:
    """Three seeds of one config: the last held-out return, its interval over runs, the best."""
    text = text_of(pages["seeds"])
    assert "all 3 runs | 40.00 | 40.00 to 40.00 | 40.00 | - | 3 finished | 4,000 | 1.3 | 50 | 900" in text
    assert "Final: return of the last evaluation on held-out maps" in text
    sweep = text_of(pages["sweep"])
    finals = [float(number) for number in re.findall(r"([\d.]+) \| - \| - \| - \| 1 finished", sweep)]
    assert len(finals) == 18
    assert finals == sorted(finals, reverse=True)
    assert "Final: mean return of the last 10% of the training episodes" in sweep
    assert "The 7 configs with the highest final return are in colour" in sweep


def test_the_table_as_csv_has_every_run(pages: dict[str, Path]) -> None:
    """Names are whole, whatever letters they have."""
    with (pages["mix"].parent / "runs.csv").open(newline="") as file:
        found = {line["name"]: line for line in csv.DictReader(file)}
    assert set(found) == {EVIL, "silent", "begun", "other"}
    assert found["silent"]["final_return"] == ""


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple]:
    """Runs the command in an empty folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_page_gets_a_folder_of_its_own(command: Callable[..., tuple], tmp_path: Path) -> None:
    """Without --output it is outputs/reports/TIME; the last line says where, and how long it took."""
    run = write_run(tmp_path / "run", rows([1, 2]))
    before = sorted(run.iterdir())
    code, out, err = command(run)
    (page,) = (tmp_path / "outputs/reports").glob("*/index.html")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"1 runs and 0 evaluations in [\d.]+ s: {page.relative_to(tmp_path)}\n", out)
    assert sorted(run.iterdir()) == before, "the run's folder is left alone"


def test_a_page_is_only_overwritten_when_asked(command: Callable[..., tuple], tmp_path: Path) -> None:
    """Then no picture of the page before it stays, and what is not the report's does."""
    write_run(tmp_path / "a", rows([1, 2]))
    write_run(tmp_path / "b", rows([1, 2]), mission={"max_steps": 30})
    output = tmp_path / "page"
    assert command(tmp_path, "--output", output)[0] == 0
    (output / "pictures/mine.png").touch()
    written = (output / "index.html").read_bytes()
    code, _, err = command(tmp_path / "a", "--output", output)
    assert code == 1
    assert "index.html is there already" in err
    assert (output / "index.html").read_bytes() == written
    assert command(tmp_path / "a", "--output", output, "--overwrite")[0] == 0
    names = {path.name.split("_")[0] for path in (output / "pictures").iterdir()}
    assert names == {"mission1", "mine.png"}


def test_folders_that_cannot_be_read_are_named(command: Callable[..., tuple], tmp_path: Path) -> None:
    """On stderr, while the page is made of the rest."""
    write_run(tmp_path / "runs/good", rows([1, 2]))
    (write_run(tmp_path / "runs/old", []) / "config.yaml").write_text("learning: 3")
    code, out, err = command(tmp_path / "runs", "--output", "page")
    assert (code, err) == (0, "could not be read, see the page: old\n")
    assert out.startswith("1 runs and 0 evaluations")


@pytest.mark.parametrize("taken", ["index.html", "runs.csv", "pictures"])
def test_nothing_is_written_beside_what_is_there(command: Callable[..., tuple], tmp_path: Path, taken: str) -> None:
    """One of the report's own names is enough."""
    write_run(tmp_path / "run", [])
    (tmp_path / "page" / taken).mkdir(parents=True)
    assert command(tmp_path / "run", "--output", tmp_path / "page")[0] == 1
    assert [path.name for path in (tmp_path / "page").iterdir()] == [taken]


@pytest.mark.parametrize(
    ("paths", "output", "problem"),
    [
        (["nowhere"], "page", "nowhere does not exist"),
        (["run"], "run/config.yaml", "cannot be written (Not a directory)"),
    ],
)
def test_a_mistake_is_one_message(
    command: Callable[..., tuple], tmp_path: Path, paths: list[str], output: str, problem: str
) -> None:
    """On stderr, with exit code 1; nothing is written."""
    write_run(tmp_path / "run", [])
    code, out, err = command(*paths, "--output", output)
    assert (code, out) == (1, "")
    assert problem in err
    assert not (tmp_path / "page").exists()


def test_the_module_can_be_run_without_a_terminal(tmp_path: Path) -> None:
    """`python -m scout.report` of a folder without runs: one line on stderr, no traceback, exit code 1."""
    result = run_script("-m", "scout.report", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "has no training run and no evaluation in it" in result.stderr
