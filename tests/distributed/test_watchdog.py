import threading

from deadlines import WAIT

from tune_prune.distributed.watchdog import Watchdog


def test_what_takes_too_long_is_noticed() -> None:
    bitten = threading.Event()
    late = Watchdog(0.01, bitten.set)
    assert bitten.wait(WAIT)
    late.stop()


def test_what_is_in_time_is_left_alone() -> None:
    bitten = threading.Event()
    watchdog = Watchdog(1000.0, bitten.set)
    timer = watchdog._timer
    assert timer is not None
    watchdog.stop()
    timer.join(WAIT)
    assert not timer.is_alive()
    watchdog._call()  # it had begun just before
    assert not bitten.is_set()


def test_never() -> None:
    Watchdog(None, lambda: None).stop()
