"""A small server on 127.0.0.1 with the routes of the Hugging Face hub that huggingface_hub uses for models."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_this_test"


@dataclass
class Repository:
    """A repository: its commits, each with all files at that time, and the latest commit of each branch."""

    private: bool = False
    gated: bool = False  #: whether a consent is asked for, which nobody has given
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, added, deleted=(), branch="main"):
        files = {**self.commits.get(self.branches.get(branch), {}), **added}
        files = {name: content for name, content in files.items() if name not in deleted}
        content = json.dumps([len(self.commits), *((name, _sha1(each)) for name, each in sorted(files.items()))])
        self.branches[branch] = _sha1(content.encode())
        self.commits[self.branches[branch]] = files

    def at(self, revision):
        """Hash and files of a commit, or None."""
        commit = self.branches.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None


@dataclass
class Hub:
    """What the server has, and the requests that it got."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  #: method and path of every request
    stored: dict[str, bytes] = field(default_factory=dict)  #: large files by their sha256, as over LFS
    full: bool = False  #: whether it stores no more large files
    damages: bool = False  #: whether large files come with a wrong last byte
    down: bool = False  #: whether it answers 503 to everything
    login: bool = False  #: whether a page that asks for a login answers everything, as in a hotel
    url: str = ""

    def add(self, name, private=False, **files):
        """Make a repository with these files, whose names have _ in place of the dot."""
        repository = self.repositories[name] = Repository(private)
        repository.commit({_dotted(file): content for file, content in files.items()})
        return repository

    def downloads(self, file):
        """How often a file was downloaded; of large files, any of them."""
        asked = r"GET /lfs/\w+" if _is_large(file) else rf"GET /.+/resolve/.+/{re.escape(file)}"
        return sum(re.fullmatch(asked, line) is not None for line in self.asked)


def _dotted(name):
    return ".".join(name.rsplit("_", 1))


def _sha1(content):
    return hashlib.sha1(content).hexdigest()


def _is_large(name):
    """Whether a file goes over LFS, whatever its size: by the .gitattributes of every new repository of the hub."""
    return name.endswith(".safetensors")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_PUT(self):
        self._answer()

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.down:
            return self._send(503, b"")
        if self.hub.login:
            return self._send(200, b"<html>Welcome!</html>", Content_Type="text/html")
        for method, pattern, answer in self.routes:
            if found := method == self.command and re.fullmatch(pattern, path):
                return answer(self, *found.groups())
        return self._refuse(404, "", "no such route")

    def _send(self, status, content, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status, code, message):
        self._send(status, b"", **({"X_Error_Code": code} if code else {}), X_Error_Message=message)

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), Content_Type="application/json")

    @property
    def _known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _found(self, name, revision="main"):
        """Hash and files of a revision; None after an answer that says why there is none."""
        repository = self.hub.repositories.get(name)
        if not self._known and self.headers.get("Authorization"):
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and not self._known):
            return self._refuse(404 if self._known else 401, "RepoNotFound", "Repository not found")
        if repository.gated:
            return self._refuse(403, "GatedRepo", "Access to this model is restricted")
        return repository.at(revision) or self._refuse(404, "RevisionNotFound", "Invalid rev id")

    def _resolve(self, name, revision, file):
        if found := self._found(name, revision):
            commit, files = found
            if file not in files:
                return self._refuse(404, "EntryNotFound", "Entry not found")
            if not _is_large(file):
                return self._send(200, files[file], ETag=f'"{_sha1(files[file])}"', X_Repo_Commit=commit)
            oid = hashlib.sha256(files[file]).hexdigest()
            self.hub.stored[oid] = files[file]
            linked = {"X_Linked_ETag": f'"{oid}"', "X_Linked_Size": str(len(files[file])), "X_Repo_Commit": commit}
            # As on the hub, they lie on another host, which is not told the token.
            self._send(302, b"", Location=f"{self.hub.url.replace('127.0.0.1', 'localhost')}/lfs/{oid}", **linked)

    def _stored(self, oid):
        if self.headers.get("Authorization"):
            return self._refuse(400, "", "a token for the hub only")
        content = self.hub.stored[oid]
        self._send(200, content[:-1] + bytes([content[-1] ^ 1]) if self.hub.damages else content)

    def _info(self, name, revision="main"):
        if found := self._found(name, revision):
            commit, files = found
            siblings = [{"rfilename": one, "size": len(content)} for one, content in files.items()]
            for one in siblings:
                if _is_large(one["rfilename"]):
                    oid = hashlib.sha256(files[one["rfilename"]]).hexdigest()
                    one["lfs"] = {"sha256": oid, "size": one["size"], "pointerSize": 134}
            card = yaml.safe_load(([*files.get("README.md", b"").decode().split("---\n"), ""])[1])
            self._json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "cardData": card})

    def _branch(self, name, branch):
        repository = self.hub.repositories[name]
        there = branch in repository.branches
        repository.branches.setdefault(branch, repository.branches["main"])
        self._send(409 if there else 201, b"")

    def _create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._known:
            return self._refuse(401, "", "Invalid username or password.")
        if not name.startswith("me/"):
            return self._refuse(403, "", "You don't have the rights to create a model under this namespace")
        there = name in self.hub.repositories
        if not there:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private)
            self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text"})
        answer = json.dumps({"url": f"{self.hub.url}/{name}", "name": name}).encode()
        self._send(409 if there else 200, answer, Content_Type="application/json")

    def _preupload(self, name, revision):
        if not self._known:
            return self._refuse(401, "", "Invalid username or password.")
        if revision not in self.hub.repositories[name].branches:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        files = json.loads(self.body)["files"]
        modes = {one["path"]: "lfs" if _is_large(one["path"]) else "regular" for one in files}
        self._json({"files": [{"path": k, "uploadMode": mode, "shouldIgnore": False} for k, mode in modes.items()]})

    def _batch(self, name):
        """As https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md: where each large file is to be put."""
        if not self._known:
            return self._refuse(401, "", "Invalid username or password.")
        objects = json.loads(self.body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.stored:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, oid):
        if self.hub.full or hashlib.sha256(self.body).hexdigest() != oid:
            return self._refuse(400, "", "not stored")
        self.hub.stored[oid] = self.body
        self._send(200, b"")

    def _xet(self, name, revision):
        """No token for Xet, the protocol of hf_xet: its storage is not imitated here."""
        self._refuse(403, "", "Xet is not served here")

    def _commit(self, name, revision):
        lines = [json.loads(line) for line in self.body.splitlines()]
        kinds = ("file", "lfsFile", "deletedFile")
        files, large, deleted = ([line["value"] for line in lines if line["key"] == kind] for kind in kinds)
        added = {one["path"]: base64.b64decode(one["content"]) for one in files}
        added |= {one["path"]: self.hub.stored[one["oid"]] for one in large}
        repository = self.hub.repositories[name]
        repository.commit(added, [one["path"] for one in deleted], revision)
        commit = repository.branches[revision]
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit, "hookOutput": ""})

    def _validate(self):
        """As the hub: the metadata of a card is a YAML mapping, and a licence one that it knows."""
        try:
            metadata = yaml.safe_load(json.loads(self.body)["content"].split("---\n")[1])
            wrong = (
                [] if metadata.get("license", "mit") in ("mit", "apache-2.0") else ['"license" must be one of [mit]']
            )
        except (AttributeError, LookupError, yaml.YAMLError):
            wrong = ["metadata is missing"]
        answer = json.dumps({"errors": [{"message": one} for one in wrong], "warnings": []})
        self._send(400 if wrong else 200, answer.encode(), Content_Type="application/json")

    routes = (
        ("POST", r"/api/validate-yaml", _validate),
        ("POST", r"/api/repos/create", _create),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", _preupload),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", _commit),
        ("POST", r"/([^/]+/[^/]+).git/info/lfs/objects/batch", _batch),
        ("PUT", r"/lfs/(\w+)", _store),
        ("GET", r"/lfs/(\w+)", _stored),
        ("GET", r"/api/models/([^/]+/[^/]+)/xet-write-token/(.+)", _xet),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", _branch),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/(.+)", _info),
        ("GET", r"/api/models/([^/]+/[^/]+)", _info),
        ("HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
    )


@contextmanager
def serve():
    """A running `Hub` without repositories."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
