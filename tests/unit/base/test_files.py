import threading
import time
from contextlib import suppress

from zsbir.base.files import write_atomic


def test_a_file_is_written_though_its_empty_folder_is_removed_at_the_same_moment(tmp_path):
    folder, stop = tmp_path / "parts", threading.Event()

    def remove():
        while not stop.is_set():
            with suppress(OSError):
                folder.rmdir()
            time.sleep(2e-4)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for number in range(300):
            write_atomic(folder / "a", b"%d" % number)
            assert (folder / "a").read_bytes() == b"%d" % number
            (folder / "a").unlink()
    finally:
        stop.set()
        thread.join()
