"""The book keeps every promise through crashes at any byte."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parhelia_mcp.errors import Corrupted
from parhelia_mcp.inside.book import Book, NoRoom

CAP = 1000
amounts = st.integers(0, CAP + 100)


class Books(RuleBasedStateMachine):
    """Reserve, settle, crash and come back, beside a model of plain numbers."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "book"
        self.book = Book(self.path, CAP)
        self.spent = 0
        self.open: dict[int, int] = {}

    def teardown(self):
        self.book.close()
        self.folder.cleanup()

    @rule(micro=amounts)
    def reserve(self, micro):
        fits = self.spent + sum(self.open.values()) + micro <= CAP
        try:
            self.open[self.book.reserve(micro, "m")] = micro
        except NoRoom:
            assert not fits
        else:
            assert fits

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data):
        number = data.draw(st.sampled_from(sorted(self.open)))
        micro = data.draw(st.integers(0, self.open.pop(number)))
        self.book.settle(number, micro, {})
        self.spent += micro

    @rule(torn=st.sampled_from([b"", b"{", b'{"open":99999,"micro":1']))
    def crash(self, torn):
        self.book.close()
        with self.path.open("ab") as file:
            file.write(torn)
        self.spent += sum(self.open.values())
        self.open = {}
        self.book = Book(self.path, CAP)
        numbers = [entry["close"] for entry in self.book.closed]
        assert len(numbers) == len(set(numbers))
        assert sum(entry["micro"] for entry in self.book.closed) == self.spent

    @invariant()
    def nothing_is_lost_and_the_cap_holds(self):
        assert (self.book.spent_micro, self.book.reserved_micro) == (self.spent, sum(self.open.values()))
        assert self.book.spent_micro + self.book.reserved_micro <= CAP


Books.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestBooks = Books.TestCase


def test_a_charge_above_its_reservation_is_kept_and_nothing_more_is_reserved(tmp_path):
    book = Book(tmp_path / "book", CAP)
    book.settle(book.reserve(900, "m"), 1200, {})
    assert (book.spent_micro, book.left_micro) == (1200, 0)
    with pytest.raises(NoRoom):
        book.reserve(1, "m")
    book.close()


def test_a_kill_before_the_disk_has_a_reservation_charges_it_all_the_same(tmp_path):
    program = "import sys; from pathlib import Path; from parhelia_mcp.inside.book import Book; Book(Path(sys.argv[1]), 1000).reserve(400, 'm')"
    environment = {**os.environ, "PARHELIA_FAILPOINT": "meter-before-fsync:kill9"}
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "book"], env=environment, check=False)
    assert done.returncode == -9
    book = Book(tmp_path / "book", CAP)
    assert book.spent_micro == 400
    book.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from parhelia_mcp.inside.book import Book
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
book = Book(Path(sys.argv[1]), 1000)
book.reserve(100, "m")
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1]).stat().st_size + 10, resource.RLIM_INFINITY))
try:
    book.reserve(200, "m")
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    book.reserve(300, "m")
"""


def test_a_full_disk_leaves_no_half_line_behind(tmp_path):
    subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "book"], check=True)
    book = Book(tmp_path / "book", CAP)
    assert book.spent_micro == 400
    book.close()


def test_a_damaged_book_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "book").write_text('{"open":1,"micro":5,"model":"m"}\ngarbage\n')
    with pytest.raises(Corrupted) as damaged:
        Book(tmp_path / "book", CAP)
    assert damaged.value.code == "meter-book-damaged"
