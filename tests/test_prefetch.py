"""Batches read ahead: the right ones, in order, by one thread that ends with the run."""

import threading
import time

import numpy as np
import pytest

from diffusion_eqx.data import ImageDataset
from diffusion_eqx.training import Callback, ReadAhead, TrainingInterrupted
from tests.image_fit import fit_images
from tests.source_sets import IMAGES


class Noted:
    """A data set of a user's own that notes which batch was asked for, and by whom."""

    shape = (6, 5, 1)
    num_classes = None
    class_names = ()
    labels = None

    def __init__(self, wait=lambda number: None):
        self.wait = wait
        self.asked: list[int] = []
        self.threads: set[str] = set()

    def __len__(self):
        return len(IMAGES)

    def batches(self, batch_size, *, seed):
        del seed
        return _Batches(self, batch_size)


class _Batches:
    def __init__(self, data, size):
        self.data, self.size = data, size

    def __getitem__(self, number):
        self.data.asked.append(number)
        self.data.threads.add(threading.current_thread().name)
        self.data.wait(number)
        return {"images": IMAGES[(number * self.size + np.arange(self.size)) % len(IMAGES)]}


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def taken(ahead: ReadAhead) -> np.ndarray:
    batch = ahead.take(lambda: False)
    assert batch is not None
    return batch["images"]


def test_a_batch_is_read_before_it_is_asked_for_and_none_beyond_the_last():
    data = Noted()
    batches = data.batches(4, seed=0)
    with ReadAhead(batches, slice(1, 3), first=2, last=6) as ahead:
        deadline = time.monotonic() + 30
        while len(data.asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        # Two wait, and the third cannot be put beside them until one is taken.
        assert data.asked == [2, 3, 4]
        for number in range(2, 6):
            np.testing.assert_array_equal(taken(ahead), batches[number]["images"][1:3])
    assert sorted(set(data.asked)) == [2, 3, 4, 5]
    assert not readers()


def test_a_run_sees_what_it_would_see_without_a_thread():
    data = Noted()
    found = fit_images(data, steps=12)
    assert data.asked[-12:] == list(range(12))
    assert data.threads == {"read-ahead"}
    assert not readers()
    # How long a batch takes to read changes nothing.
    slow = Noted(lambda number: time.sleep(0.005 * (number % 3)))
    np.testing.assert_array_equal(fit_images(slow, steps=12), found)


def test_rows_are_read_alone_where_the_data_can():
    batches = ImageDataset(IMAGES).batches(4, seed=0)

    class Whole:
        def __getitem__(self, number):
            raise AssertionError("all rows of a batch were read")

        part = staticmethod(batches.part)

    with ReadAhead(Whole(), slice(1, 3), first=3, last=9) as ahead:
        for number in range(3, 9):
            np.testing.assert_array_equal(taken(ahead), batches[number]["images"][1:3])


def test_what_goes_wrong_while_reading_is_raised_in_the_run():
    def fail(number):
        if number == 5:
            raise OSError("the disk was pulled out")

    steps = []

    class Count(Callback):
        def step(self, run):
            steps.append(run.step)

    with pytest.raises(OSError, match="the disk was pulled out"):
        fit_images(Noted(fail), callbacks=[Count()])
    # The batches before were trained on.
    assert steps == [1, 2, 3, 4, 5]
    assert not readers()


def test_a_run_that_waits_for_data_stops_when_it_is_asked_to(tmp_path):
    """The state after the last step is saved, though no step follows."""
    stuck, free = threading.Event(), threading.Event()

    def wait(number):
        if number == 7:
            stuck.set()
            free.wait(60)

    class StopWhileWaiting(Callback):
        def start(self, run):
            self.run = run
            threading.Thread(target=self.ask, daemon=True).start()

        def ask(self):
            assert stuck.wait(60)
            while self.run.step < 7:
                time.sleep(0.001)
            self.run.stopping = True

    folder = tmp_path / "run"
    try:
        fit_images(Noted(wait), folder, callbacks=[StopWhileWaiting()], checkpoint_every=100)
    finally:
        free.set()
    for thread in readers():
        thread.join(30)
    assert not readers()
    assert (folder / "checkpoints" / "7").exists()
    np.testing.assert_array_equal(fit_images(Noted(), folder), fit_images(Noted()))


def test_no_thread_is_left_after_failures_and_interruptions():
    class Fail(Callback):
        def step(self, run):
            if run.step == 3:
                raise RuntimeError("no more")

    class Interrupt(Callback):
        def step(self, run):
            if run.step == 3:
                import signal

                signal.raise_signal(signal.SIGINT)

    with pytest.raises(RuntimeError, match="no more"):
        fit_images(Noted(), callbacks=[Fail()])
    with pytest.raises(TrainingInterrupted):
        fit_images(Noted(), callbacks=[Interrupt()])
    assert not readers()
