"""The questions that somebody at the device has to answer, kept over restarts and reboots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from updated.core.consent import Moment, Question, Rules, answer, consider, stands
from updated.core.gate import Hold, Stage, Subject
from updated.document import Document, Warn
from updated.errors import DeviceError, Refused
from updated.finish import to_its_end


class Consents:
    """One question for each stage, the last one.  Belongs to the event loop; making it blocks."""

    def __init__(self, data: Path, moment: Callable[[], Moment], warn: Warn) -> None:
        self._document = Document(data / "consent.json", list[Question], [], warn)
        self._moment = moment
        self._warn = warn
        self._one_at_a_time = asyncio.Lock()

    def waiting(self) -> Sequence[Question]:
        """Those that nobody has answered yet."""
        return [question for question in self._document.value if not question.reply]

    async def ask(self, stage: Stage, subject: Subject, rules: Rules) -> Hold | None:
        """None: somebody agrees, or has to be taken to."""
        async with self._one_at_a_time:
            question, hold = consider(stage, subject, self._last(stage), rules, self._moment())
            await self._keep(question)
        return hold

    async def answer(self, stage: Stage, rules: Rules, *, allow: bool) -> None:
        """Raises Refused(rule="consent") if nothing was asked, or was answered too long ago."""
        async with self._one_at_a_time:
            question = self._last(stage)
            if question is None or not stands(question, rules, self._moment()):
                raise Refused(
                    f"Nobody was asked to agree to {'an install' if stage == 'install' else 'a reboot'}",
                    rule="consent",
                    hint="`updated why` tells what is waited for.",
                )
            await self._keep(answer(question, allow=allow, now=self._moment()))

    async def withdraw(self, stage: Stage) -> None:
        """Nothing waits there any more: what nobody has answered needs no answer."""
        async with self._one_at_a_time:
            await self._save([q for q in self._document.value if q.stage != stage or q.reply])

    def _last(self, stage: Stage) -> Question | None:
        return next((question for question in self._document.value if question.stage == stage), None)

    async def _keep(self, question: Question) -> None:
        others = [other for other in self._document.value if other.stage != question.stage]
        questions = sorted([*others, question], key=lambda one: one.stage)
        await self._save(questions)

    async def _save(self, questions: list[Question]) -> None:
        """What cannot be saved holds until the end of the service; after that it is asked again."""
        if questions == self._document.value:
            return
        try:
            await to_its_end(asyncio.to_thread(self._document.save, questions))
        except DeviceError as error:
            self._warn(error.with_hint())
