"""A report that is served: to this machine alone, nothing but the page, and the page of now."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from deadlines import WAIT
from toys import ended, fault

from tune_prune.common.errors import UserError
from tune_prune.results import records
from tune_prune.workflows.local_server import serve_locally
from tune_prune.workflows.report import watch_report
from tune_prune.workflows.watch import LivePage, make_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SPACE = '[task]\nmodel = "lenet5"\ndata = "mnist"\n[space.ratio]\n"*" = {low = 0.1, high = 0.9}\n'


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A search that still runs, with a round of a trial."""
    records.write(tmp_path, replace(ended(0, (0.5, 0.8)), state="running"))
    (tmp_path / "space.toml").write_text(SPACE)
    (tmp_path / "run.json").write_text("{}")
    return tmp_path


@pytest.fixture
def address(run_dir: Path) -> Iterator[str]:
    """Where a page is served that says how many records there are."""
    page = LivePage([run_dir], lambda script: f"{len([*(run_dir / 'results').iterdir()])} records")
    with serve_locally(make_app(page), 0) as served:
        yield served


def ask(address: str, path: str = "", host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
    """Status and text of an answer."""
    request = urllib.request.Request(f"{address}{path}", headers={"Host": host}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_is_that_of_now(run_dir: Path, address: str) -> None:
    before = ask(address, "version")
    assert ask(address) == (200, "1 records")
    assert ask(address, "version") == before
    records.write(run_dir, ended(1, (0.5, 0.8)))
    assert ask(address, "version") != before
    assert ask(address) == (200, "2 records")


@pytest.mark.parametrize("path", ["space.toml", "results/0.json", "../", "%2e%2e/", "index.html", "/etc/passwd"])
def test_nothing_else_is_served(address: str, path: str) -> None:
    status, text = ask(address, path)
    assert status == 404
    assert "lenet5" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_nothing_can_be_sent(address: str, method: str) -> None:
    assert ask(address, method=method)[0] == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::", "", "x:1"])
def test_a_request_by_another_name_is_refused(address: str, host: str) -> None:
    """A name of a stranger's that resolves to 127.0.0.1 would let the stranger's page read this one."""
    status, text = ask(address, host=host)
    assert (status, "records" in text) == (403, False)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8090"])
def test_the_end_of_a_tunnel_is_this_machine(address: str, host: str) -> None:
    assert ask(address, host=host)[0] == 200


def test_only_the_loopback_address_is_open(address: str) -> None:
    port = int(re.findall(r":(\d+)/", address)[0])
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"
    # 127.0.0.2 is this machine as well: a server on every address would answer there
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=WAIT)


def test_a_port_that_is_taken_is_left(address: str) -> None:
    port = int(re.findall(r":(\d+)/", address)[0])
    with serve_locally(lambda environ, start: [], port) as other:
        assert other != address


def test_other_pages_cannot_read_or_frame_it(address: str) -> None:
    with urllib.request.urlopen(address, timeout=WAIT) as answer:
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert answer.headers["Cache-Control"] == "no-store"


def test_what_keeps_it_from_being_made_stands_in_its_place(run_dir: Path) -> None:
    def make(script: str) -> str:
        raise UserError("no round of <any> trial has ended yet")

    text = LivePage([run_dir], make).content().decode()
    assert "no round of &lt;any&gt; trial has ended yet" in text
    assert 'fetch("version")' in text  # it looks for more


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    said = fault(lambda: watch_report(tmp_path, [], print))
    assert said == f"{tmp_path}: no run; name the directory of a search"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_the_command_serves_a_page_that_loads_itself_again(run_dir: Path) -> None:
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "tune_prune", "report", str(run_dir), "--watch"]
    before = sorted(path.name for path in run_dir.iterdir())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as serving:
        assert serving.stdout is not None
        address = serving.stdout.readline().split()[0]
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * WAIT)
            page, asked = browser.new_page(), list[str]()
            page.set_default_timeout(1000 * WAIT)
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            page.wait_for_selector("text=1 trials so far")
            page.fill(".filter input", "explore")
            records.write(run_dir, ended(1, (0.9, 0.9)))
            page.wait_for_selector("text=2 trials so far, 10.0x")
            assert page.input_value(".filter input") == "explore"
            assert all(url.startswith(address) for url in asked)
            browser.close()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(WAIT) == 0
    assert sorted(path.name for path in run_dir.iterdir()) == before
