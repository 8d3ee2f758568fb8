"""A model hub on this machine: the part of the Hugging Face hub's interface that loading a repository uses.

Requests go over a socket to a thread of the test's process, so that `huggingface_hub` and `datasets` work as
they do elsewhere: ETags, commits, Range requests, errors by their codes.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from project import ROOT

RESOLVE = re.compile(r"/(datasets/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+(?:/[^/]+)??)"
    r"(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)(?P<path>/.*)?|/(?P<check>auth-check))?"
)

# Runs commands of the program, each with its own output, in a process that has imported what is slow before.
RUN = """
import contextlib, io, json, sys, time
import cli, datasets, torch, transformers
import compressor.models.classifier
found = []
for arguments in json.loads(sys.argv[1]):
    output, error, began = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        code = cli.execute(arguments)
    seconds = time.monotonic() - began
    found.append({"code": code, "output": output.getvalue(), "error": error.getvalue(), "seconds": seconds})
print(json.dumps(found))
"""


@dataclass
class Repository:
    """Versions of a directory.

    Attributes:
        revisions: the content of each branch, by file name; the commit is a hash over it.
        is_gated: whether its files need a token of somebody who has accepted its terms.
    """

    revisions: dict[str, dict[str, bytes]]
    is_gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch or of itself; None if there is none."""
        commits = {name: commit_of(files) for name, files in self.revisions.items()}
        return commits.get(revision, revision if revision in commits.values() else None)

    def files_of(self, commit: str) -> dict[str, bytes]:
        """The content of a commit."""
        return next(files for files in self.revisions.values() if commit_of(files) == commit)


def commit_of(files: dict[str, bytes]) -> str:
    """40 hexadecimal digits that say what a set of files is."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a directory by their names within it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@dataclass
class Request:
    """What was asked for, and from which byte on."""

    method: str
    path: str
    range: str | None


@dataclass
class Hub:
    """Repositories, and what was asked of them.

    Attributes:
        repositories: by `models/ID` or `datasets/ID`.
        breaks: how many more times the content of a file breaks off half-way, by `models/ID/FILE`.
        token: that opens gated repositories.
        url: of the server.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    token: str = "hf_of_somebody_who_accepted"  # noqa: S105
    url: str = ""

    def add(self, place: str, files: dict[str, bytes], *, revision: str = "main", is_gated=False) -> str:
        """Add a version of a repository, or replace it; return its commit."""
        repository = self.repositories.setdefault(place, Repository({}))
        repository.revisions[revision] = files
        repository.is_gated = is_gated
        return commit_of(files)

    def downloads(self, repository: str, name: str) -> list[str | None]:
        """The ranges of each GET of a file, None where it asked for all of it."""
        start, end = f"/{repository}/resolve/", f"/{name}"
        return [
            request.range
            for request in self.requests
            if request.method == "GET" and request.path.startswith(start) and request.path.endswith(end)
        ]


@contextmanager
def local_hub():
    """Serve a `Hub` on a free port of this machine for as long as the context lasts."""
    hub = Hub()
    handler = type("HandlerOfHub", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        """Print nothing."""

    def do_HEAD(self):
        """Answer without the content."""
        self.answer()

    def do_GET(self):
        """Answer with the content."""
        self.answer()

    def do_POST(self):
        """Answer a question whose parameters are in the body."""
        self.answer()

    def answer(self):
        """Find what the path names."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        address = urlsplit(self.path)
        path = address.path
        self.hub.requests.append(Request(self.command, unquote(path), self.headers.get("Range")))
        if path == "/":
            self.send(200, b"a hub", {})
        elif found := RESOLVE.fullmatch(path):
            kind = "datasets" if found[1] else "models"
            self.answer_file(kind, found["id"], unquote(found["revision"]), unquote(found["file"]))
        elif found := API.fullmatch(path):
            self.answer_api(found, parse_qs(address.query), parse_qs(body))
        else:
            self.send(404, b"Not Found", {})

    def commit(self, kind: str, name: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and commit that a path names; answers with the hub's error where it is not there."""
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None:
            # The hub does not tell what is private from what does not exist.
            self.refuse(401, "RepoNotFound", "Invalid username or password.")
            return None
        commit = repository.commit_of(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, commit

    def is_welcome(self, repository: Repository) -> bool:
        """Whether who asks has accepted a repository's terms."""
        return not repository.is_gated or self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def answer_file(self, kind: str, name: str, revision: str, file: str) -> None:
        """Send a file, or the part of it that is asked for."""
        found = self.commit(kind, name, revision)
        if found is None:
            return
        repository, commit = found
        if not self.is_welcome(repository):
            self.refuse(401, "GatedRepo", f"Access to {name} is restricted.")
            return
        content = repository.files_of(commit).get(file)
        if content is None:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        start, end = 0, len(content)
        if ranged := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(ranged[1]), min(int(ranged[2] or end) + 1, end)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        place = f"{kind}/{name}/{file}"
        is_broken = self.command == "GET" and self.hub.breaks.get(place, 0) > 0
        if is_broken:
            self.hub.breaks[place] -= 1
        self.send(206 if ranged else 200, content[start:end], headers, is_broken=is_broken)

    def answer_api(self, found: re.Match[str], query: dict, body: dict) -> None:
        """Answer what a repository is, or what files it has."""
        what, kind = found["what"], found["kind"]
        repository = self.commit(kind, found["id"], unquote(found["revision"] or "main"))
        if repository is None:
            return
        files = repository[0].files_of(repository[1])
        if found["check"] and not self.is_welcome(repository[0]):
            self.refuse(401, "GatedRepo", f"Access to {found['id']} is restricted.")
        elif what == "tree":
            folder = unquote((found["path"] or "").strip("/"))
            listed = entries(files, folder, is_recursive=query.get("recursive", [""])[0].lower() == "true")
            if folder and not listed:
                self.refuse(404, "EntryNotFound", f"{folder} does not exist")
            else:
                self.send_json(listed)
        elif what == "paths-info":
            everything = entries(files, "", is_recursive=True)
            self.send_json([entry for entry in everything if entry["path"] in body.get("paths", [])])
        else:
            self.send_json(
                {
                    "_id": "1",
                    "id": found["id"],
                    "sha": repository[1],
                    "private": False,
                    "gated": "auto" if repository[0].is_gated else False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in sorted(files)],
                }
            )

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer with one of the hub's errors."""
        content = json.dumps({"error": message}).encode()
        self.send(status, content, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def send_json(self, content) -> None:
        """Answer a question of the interface."""
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str], *, is_broken: bool = False) -> None:
        """Send a whole answer, or half of its content before the connection is closed."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if is_broken else content)
        self.close_connection = self.close_connection or is_broken


def entries(files: dict[str, bytes], folder: str, *, is_recursive: bool) -> list[dict]:
    """Files and directories within a folder of a repository, as its tree is answered."""
    prefix = f"{folder}/" if folder else ""
    within = {name: content for name, content in files.items() if name.startswith(prefix)}
    folders = {
        parent.as_posix()
        for name in within
        for parent in PurePosixPath(name).parents
        if parent.as_posix().startswith(prefix) and parent.as_posix() != "."
    }
    found = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in sorted(folders)]
    for name, content in sorted(within.items()):
        oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        found.append({"type": "file", "oid": oid, "size": len(content), "path": name})
    return [entry for entry in found if is_recursive or "/" not in entry["path"].removeprefix(prefix)]


def environment(hub_url: str, home: Path, **others: str) -> dict[str, str]:
    """The environment of a process that takes a server for the hub, with caches of its own."""
    left_out = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    own = {"HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_TOKEN_PATH": str(home / "token")}
    return kept | own | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"} | others


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        error: what it printed to standard error.
        seconds: that it took, without the start of the process and its imports.
    """

    code: int
    output: str
    error: str
    seconds: float


def commands(each: list[list], variables: dict[str, str], folder: Path) -> list[Done]:
    """Run commands of the program one after the other in a process of their own, in a folder.

    They share what a process finds out once, such as whether the hub answers.
    """
    arguments = json.dumps([[str(part) for part in command] for command in each])
    done = subprocess.run(
        [sys.executable, "-c", RUN, arguments],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Done(**entry) for entry in json.loads(done.stdout.splitlines()[-1])]
