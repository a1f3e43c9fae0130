"""Many who ask cost one question; who leaves, and what fails, spoils nothing for the others."""

import asyncio

import pytest

from actors.http.port import NoEngineError
from actors.http.ray_engine import RayEngine, Shared
from actors.words import History


class Asked:
    """Answers with how often it was asked, as soon as it may."""

    def __init__(self):
        self.count = 0
        self.gate = asyncio.Event()
        self.failure = None

    async def __call__(self):
        self.count += 1
        number = self.count
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return number


def test_all_who_ask_at_once_have_the_answer_to_one_question():
    async def story():
        asked = Asked()
        shared = Shared(asked, good_s=60)
        waiting = [asyncio.create_task(shared.get()) for _ in range(50)]
        await asyncio.sleep(0)
        asked.gate.set()
        return await asyncio.gather(*waiting), await shared.get(), asked.count

    assert asyncio.run(story()) == ([1] * 50, 1, 1)


def test_an_answer_grows_old():
    async def story():
        asked = Asked()
        asked.gate.set()
        shared = Shared(asked, good_s=0.0)
        return [await shared.get() for _ in range(3)]

    assert asyncio.run(story()) == [1, 2, 3]


def test_who_leaves_does_not_take_the_answer_along():
    async def story():
        asked = Asked()
        shared = Shared(asked, good_s=60)
        leaves, stays = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        asked.gate.set()
        return await stays, leaves.cancelled() or leaves.cancelling(), asked.count

    found, left, count = asyncio.run(story())
    assert (found, bool(left), count) == (1, True, 1)


def test_a_failure_is_told_to_all_and_the_next_asks_anew():
    async def story():
        asked = Asked()
        asked.gate.set()
        asked.failure = ValueError("no")
        shared = Shared(asked, good_s=60)
        told = await asyncio.gather(*(shared.get() for _ in range(3)), return_exceptions=True)
        asked.failure = None
        return [str(one) for one in told], await shared.get(), asked.count

    assert asyncio.run(story()) == (["no"] * 3, 2, 2)


def test_after_a_wish_the_old_answer_is_good_for_nobody():
    async def story():
        asked = Asked()
        shared = Shared(asked, good_s=60)
        before = asyncio.create_task(shared.get())
        await asyncio.sleep(0)
        shared.forget()
        after = asyncio.create_task(shared.get())
        await asyncio.sleep(0)
        asked.gate.set()
        return await before, await after, await shared.get()

    assert asyncio.run(story()) == (1, 2, 2)


def test_a_past_that_nobody_has_told_yet_is_not_an_empty_one():
    class Told:
        def __init__(self, *histories):
            self.histories = list(histories)

        async def ask(self, _method):
            return self.histories.pop(0)

    async def story():
        engine = RayEngine(history_s=0.0)
        engine._engine = Told(History(0, (), (), ()), known)
        with pytest.raises(NoEngineError, match="not known yet"):
            await engine.history()
        return await engine.history()

    known = History(1, (), (), ())
    assert asyncio.run(story()) is known


@pytest.fixture(autouse=True)
def _no_stray_warnings(recwarn):
    yield
    assert not [one for one in recwarn if "never retrieved" in str(one.message)]
