"""A federation's processes: told what they need, and ended whatever happens.

Flower's commands are replaced by a script that says how it was called, starts a child
in a session of its own, as Flower's do, and stays.
"""

import json
import os
import ssl
import stat
import subprocess
import sys
import time
import tomllib

import pytest

from deployment import processes
from deployment.credentials import make_node_keys, make_server_certificate
from deployment.processes import CONNECTION, DeploymentError, Federation
from simulations.sessions import members

STAND_IN = f"""#!{sys.executable}
import http.server, json, os, pathlib, ssl, subprocess, sys
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
home = pathlib.Path(os.environ["FLWR_HOME"])
(home / "called.tmp").write_text(json.dumps(sys.argv[1:]))
(home / "called.tmp").rename(home / "called.json")
port = int(sys.argv[sys.argv.index("--port") + 1])
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", port), Healthy)
if "--ssl-certfile" in sys.argv:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    after = lambda name: sys.argv[sys.argv.index(name) + 1]
    context.load_cert_chain(after("--ssl-certfile"), after("--ssl-keyfile"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    path = tmp_path / "stand-in"
    path.write_text(STAND_IN)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(processes, "script", lambda name: str(path))
    return path


def called(home) -> list[str]:
    end = time.monotonic() + 20
    while not (home / "called.json").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return json.loads((home / "called.json").read_text())


def test_all_are_ended_when_the_block_raises(stand_in, tmp_path):
    federation = Federation(tmp_path / "flower")

    with pytest.raises(KeyboardInterrupt), federation:  # noqa: PT012
        federation.start_superlink()
        federation.start_supernode("a", {})
        called(tmp_path / "flower" / "a")
        # Each has a child in another session.
        assert [len(members(s.pid)) for s in federation.started] == [2, 2]
        assert len(federation.left_over()) == 4
        raise KeyboardInterrupt

    assert [members(s.pid) for s in federation.started] == [[], []]
    assert federation.left_over() == []


def test_a_superlink_that_ends_at_once_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "script", lambda name: "false")

    with (
        Federation(tmp_path) as federation,
        pytest.raises(DeploymentError, match=r"did not answer.*process\.log"),
    ):
        federation.start_superlink()


def test_an_open_superlink_is_told_to_be_one(stand_in, tmp_path):
    with Federation(tmp_path) as federation:
        federation.start_superlink()
        federation.start_supernode("a", {})

        assert "--insecure" in called(tmp_path / "superlink")
        assert "--insecure" in called(tmp_path / "a")
        config = tomllib.loads((tmp_path / "flwr" / "config.toml").read_text())
        port = federation.started[0].port
        assert config["superlink"][CONNECTION] == {
            "address": f"127.0.0.1:{port}",
            "insecure": True,
        }
        assert len({started.port for started in federation.started}) == 2


def test_with_a_certificate_nobody_is_insecure(stand_in, tmp_path):
    certificate = make_server_certificate(tmp_path / "c", ["127.0.0.1"])
    keys = make_node_keys(tmp_path / "keys", "a")
    with Federation(tmp_path, certificate) as federation:
        federation.start_superlink()  # it answers by TLS, or this fails
        federation.start_supernode("a", {"name": "a"}, keys)

        link, node = called(tmp_path / "superlink"), called(tmp_path / "a")
        assert "--enable-supernode-auth" in link
        assert "--insecure" not in link + node
        assert node[node.index("--root-certificates") + 1] == str(certificate.authority)
        assert node[node.index("--auth-supernode-private-key") + 1] == str(keys.private)
        config = tomllib.loads((tmp_path / "flwr" / "config.toml").read_text())
        assert config["superlink"][CONNECTION] == {
            "address": f"127.0.0.1:{federation.started[0].port}",
            "root-certificates": str(certificate.authority),
        }


def test_a_superlink_with_another_certificate_is_not_taken(
    stand_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(processes, "_START_S", 2)
    certificate = make_server_certificate(tmp_path / "c", ["127.0.0.1"])
    federation = Federation(tmp_path, certificate)
    real = ssl.create_default_context
    other = make_server_certificate(tmp_path / "other", ["127.0.0.1"])
    monkeypatch.setattr(
        ssl, "create_default_context", lambda cafile: real(cafile=other.authority)
    )

    with federation, pytest.raises(DeploymentError, match="did not answer"):
        federation.start_superlink()


def test_a_nodes_settings_arrive_as_they_are(stand_in, tmp_path):
    given = {"edits-path": '/a "b"/c d.json', "edits-per-round": 4}
    with Federation(tmp_path) as federation:
        federation.start_superlink()
        federation.start_supernode("a", given)

        arguments = called(tmp_path / "a")
        path = arguments[arguments.index("--node-config") + 1]
        # As the SuperNode reads it.
        from flwr.common.config import parse_config_args

        assert parse_config_args([path]) == given


def test_a_process_has_a_home_and_threads_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "script", lambda name: "env")
    printed = Federation(tmp_path, threads=3).flwr()

    environment = dict(line.split("=", 1) for line in printed.splitlines())
    assert environment["FLWR_HOME"] == str(tmp_path / "flwr")
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"


def test_a_command_that_fails_is_told_with_what_it_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "script", lambda name: "ls")

    with pytest.raises(DeploymentError, match=r"flwr /nowhere.*No such file"):
        Federation(tmp_path).flwr("/nowhere")


def test_only_this_federations_processes_are_left_over(tmp_path):
    environment = {**os.environ, "FLWR_HOME": str(tmp_path / "other" / "a")}
    other = subprocess.Popen(["sleep", "600"], env=environment)

    assert Federation(tmp_path / "flower").left_over() == []
    assert Federation(tmp_path / "other").left_over() == [other.pid]

    other.kill()
    other.wait()
