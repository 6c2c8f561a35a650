"""A real S3 server: Ceph's monitor, one object store daemon and its S3 gateway (RGW), unpacked from Debian's packages.

Nothing is installed. What this machine lacks (57 MB) is fetched by `apt-get download` once, into the cache of the project. Unlike
moto it checks signatures, knows quotas, and with the store "bluestore" keeps its data through SIGKILL of all its processes.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from servers.debian import Packages, Unavailable
from servers.processes import HOST, free_ports, guard, kill
from servers.s3 import S3Server

__all__ = ["Rgw", "Unavailable", "rgw_server"]

Store = Literal["memstore", "bluestore"]

PROGRAMS = ["ceph-base", "ceph-common", "ceph-mon", "ceph-osd", "radosgw"]
"""The packages of the programs; their libraries, as far as this machine lacks them, are found out from apt."""
LIBRARIES = "usr/lib/x86_64-linux-gnu"
START_S = 60
FSID = "11111111-2222-3333-4444-555555555555"
OSD = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
CONFIG = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = {monitors}
# Without keys the gateway hangs at its start.
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {run}/keyring
# One copy of everything, and no complaint about it.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 0
mon_data_avail_warn = 0
# Every new pool is a round of the monitor, which waits a second to gather more; a request to a pool still unknown is looked at
# again each five seconds. Together they were 10 s of the start.
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
objecter_tick_interval = 0.25
objecter_timeout = 1
bdev_aio_poll_ms = 10
# So long the cluster believes that a killed gateway lives; until then whatever makes a bucket waits for its answer.
osd_client_watch_timeout = 2
osd_objectstore = {store}
memstore_device_bytes = 8589934592
bluestore_block_size = 8589934592
mon_data = {run}/mon
osd_data = {run}/osd
osd_class_dir = {libraries}/rados-classes
erasure_code_dir = {libraries}/ceph/erasure-code
plugin_dir = {libraries}/ceph
run_dir = {run}
crash_dir = {run}/log
log_file = {run}/log/$name.log
mon_cluster_log_to_file = false
# No sockets in the file system: their paths may have no more than 107 bytes.
admin_socket =
ms_bind_ipv6 = false
public_addr = {host}

[client.rgw]
rgw_data = {run}/rgw
rgw_frontends = beast endpoint={host}:{port} tcp_nodelay=1
rgw_dns_name = {host}
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_dynamic_resharding = false
"""


@contextmanager
def rgw_server(store: Store = "memstore") -> Iterator[Rgw]:
    """Start the three processes with an empty store; they are killed and their files removed at the end."""
    root = _unpacked()
    with tempfile.TemporaryDirectory(prefix="rgw-", ignore_cleanup_errors=True) as folder:
        server = Rgw(root, Path(folder), store)
        try:
            server.start()
            yield server
        finally:
            server.kill()


class Rgw(S3Server):
    """A cluster of one monitor ("mon"), one object store daemon ("osd") and one gateway ("rgw")."""

    def __init__(self, root: Path, run: Path, store: Store) -> None:
        self._root, self.run, self._store = root, run, store
        self._port, *self._monitor_ports = free_ports(3)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        super().__init__(f"http://{HOST}:{self._port}", "testing", "testing12345")

    @property
    def pids(self) -> dict[str, int]:
        """The processes that were started, by name; `kill` also waits for their end, which `start` needs to see what is missing."""
        return {name: process.pid for name, process in self._processes.items()}

    def start(self) -> None:
        """Start what does not run and wait until it answers: on the same data with bluestore, on none with memstore."""
        self._end(tuple(name for name, process in self._processes.items() if process.poll() is not None))
        if self._store == "memstore" and "osd" not in self._processes:
            self.kill()  # what the others know is of data that is gone
        fresh = not self._processes and (self._store == "memstore" or not (self.run / "osd").exists())
        if fresh:
            self._format()
        daemons = {"mon": ["ceph-mon", "-i", "a"], "osd": ["ceph-osd", "-i", "0"], "rgw": ["radosgw", "-n", "client.rgw"]}
        for name, words in daemons.items():
            if name not in self._processes:
                self._processes[name] = self._launch(name, [*words, "-f"])
        self._watch()
        self._await(lambda: _listens(self._port), f"nothing listens on port {self._port}")
        if fresh:
            keys = ["--access-key", self.access_key, "--secret", self.secret_key]
            self.radosgw_admin("user", "create", "--uid", "test", "--display-name", "test", *keys)

    def kill(self, *names: str) -> None:
        """SIGKILL of all three, or of those named, as when the power goes; the port refuses connections until `start`."""
        self._end(names or tuple(self._processes))

    def radosgw_admin(self, *words: str) -> str:
        """What the gateway's own administration prints; the user with the keys of this server is "test"."""
        return self._call("radosgw-admin", "-n", "client.rgw", *words)

    def _format(self) -> None:
        """An empty cluster: its map, keys and configuration, and the stores of monitor and object store daemon."""
        for old in list(self.run.iterdir()):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for name in ("mon", "osd", "log"):
            (self.run / name).mkdir()
        v2, v1 = self._monitor_ports
        monitors = f"[v2:{HOST}:{v2},v1:{HOST}:{v1}]"
        facts = {"fsid": FSID, "host": HOST, "port": self._port, "run": self.run, "store": self._store}
        text = CONFIG.format(monitors=monitors, libraries=self._root / LIBRARIES, **facts)
        (self.run / "ceph.conf").write_text(text, encoding="utf-8")
        map_file, keyring = str(self.run / "monmap"), str(self.run / "keyring")
        self._call("monmaptool", "--create", "--fsid", FSID, "--addv", "a", monitors, map_file)
        self._call("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        everything = [word for service in ("mon", "osd", "mgr") for word in ("--cap", service, "allow *")]
        for who in ("client.admin", "client.rgw", "osd.0"):
            self._call("ceph-authtool", keyring, "--gen-key", "-n", who, *everything)
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", map_file, "--keyring", keyring)
        self._call("ceph-osd", "--mkfs", "-i", "0", "--monmap", map_file, "--osd-uuid", OSD, "--no-mon-config")

    def _launch(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        with (self.run / "log" / f"{name}.out").open("ab") as out:
            return subprocess.Popen(
                words, env=self._environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def _call(self, *words: str) -> str:
        done = subprocess.run(words, env=self._environment(), capture_output=True, text=True, check=False, timeout=START_S)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return _environment(self._root) | {"CEPH_CONF": str(self.run / "ceph.conf")}

    def _end(self, names: tuple[str, ...]) -> None:
        for name in names:
            kill(self._processes.pop(name))
        self._watch()

    def _watch(self) -> None:
        """Put the guard over the processes of now."""
        if self._guard:
            kill(self._guard)
            assert self._guard.stdin is not None
            self._guard.stdin.close()
        self._guard = guard(list(self.pids.values()), self.run) if self._processes else None

    def _await(self, ready: Callable[[], bool], otherwise: str) -> None:
        """Wait for the gateway; what ended meanwhile, or did not come in time, is an error with the end of its log."""
        end = time.monotonic() + START_S
        while not ready():
            gone = [name for name, process in self._processes.items() if process.poll() is not None]
            if gone or time.monotonic() > end:
                logs = sorted((self.run / "log").glob("*"))
                tails = "\n".join(f"{log.name}: {log.read_text('utf-8', 'replace')[-1500:]}" for log in logs)
                raise RuntimeError(f"{f'ended: {gone}' if gone else f'{otherwise} after {START_S} s'}\n{tails}")
            time.sleep(0.05)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _environment(root: Path) -> dict[str, str]:
    """The environment in which the unpacked programs find their libraries."""
    folders = ["lib/x86_64-linux-gnu", LIBRARIES, f"{LIBRARIES}/ceph"]
    path = os.pathsep.join([str(root / "usr" / "bin"), os.environ.get("PATH", os.defpath)])
    rest = {name: value for name, value in os.environ.items() if not name.startswith("CEPH_")}
    return rest | {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(str(root / folder) for folder in folders)}


def _unpacked() -> Path:
    """The folder with the programs, fetched at the first use."""
    programs = [f"usr/bin/{name}" for name in ("ceph-mon", "ceph-osd", "radosgw")]
    return Packages("Ceph RGW", "ceph", PROGRAMS, programs, _environment).unpacked()
