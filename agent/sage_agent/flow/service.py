"""The way of a request: a slot, then a worker, then the model, each by one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import sage_obs
from sage_agent.callers import Caller
from sage_agent.flow.answers import Answer, Answers, bypassed
from sage_agent.flow.calls import ModelCalls
from sage_agent.flow.config import ConcurrencyConfig
from sage_agent.flow.conversations import Conversations
from sage_agent.flow.spending import Spending
from sage_agent.flow.steps import Steps
from sage_agent.gate import Gate
from sage_agent.llm.bill import Bill
from sage_agent.llm.estimates import tokens_of
from sage_agent.llm.providers.base import Completion, Delta, Prompt, ToolCall
from sage_agent.messages import Message, Reply, Turn, new_message_id
from sage_agent.problems import Problem
from sage_agent.state.base import SessionKey
from sage_agent.values import value
from sage_agent.within import running_loop
from sage_obs.conventions import QUEUE_WAIT, ErrorType

Emit = Callable[[Reply], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asking:
    """How models are asked: the longest answer and question in tokens (0: any), what they are told first, scripted seconds beside."""

    max_tokens: int
    max_input_tokens: int = 0
    system: str = ""
    overhead: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What a request may be answered from or remembered in; None for what is not wanted."""

    conversations: Conversations | None = None
    answers: Answers | None = None
    spending: Spending | None = None


@dataclass(frozen=True, slots=True)
class Simple:
    """Calls for questions of at most so many characters, with what was said before."""

    calls: ModelCalls
    max_chars: int


@value
class _Work:
    message: Message
    caller: Caller
    prompt: Prompt
    session: SessionKey | None
    deadline: float
    fresh: bool


class _Pieces:
    """A streamed answer on its way through."""

    def __init__(self, message: Message, message_id: str, emit: Emit) -> None:
        self._message = message
        self._message_id = message_id
        self._emit = emit
        self._texts: list[str] = []
        self._last = Delta("")
        self._calls: tuple[ToolCall, ...] = ()

    async def forward(self, model: str, delta: Delta) -> None:
        """Hand on a piece."""
        self._last = Delta("", delta.usage or self._last.usage, delta.finish or self._last.finish)
        self._calls += delta.calls
        if delta.text:
            self._texts.append(delta.text)
            await self._emit(Reply(self._message_id, self._message, delta.text, model))

    def answer(self, model: str) -> Answer:
        """All of it."""
        return Answer(model, Completion("".join(self._texts), self._last.usage, self._last.finish, self._calls))


class Service:
    """Answers messages within bounds. `agent` is what its metrics are labelled with."""

    def __init__(
        self,
        calls: ModelCalls,
        bounds: ConcurrencyConfig,
        *,
        asking: Asking,
        memory: Memory | None = None,
        simple: Simple | None = None,
        steps: Steps | None = None,
        agent: str = "",
    ) -> None:
        memory = memory or Memory()
        self.slots = Gate(bounds.max_concurrent, queue=bounds.queue_size, patience=bounds.queue_max_wait)
        self.workers = Gate(bounds.worker_pool_size, queue=bounds.max_concurrent, patience=bounds.queue_max_wait)
        self._calls = calls
        self._simple = simple
        self._steps = steps
        self._asking = asking
        self._conversations = memory.conversations
        self._answers = memory.answers
        self._spending = memory.spending
        self._agent = agent

    async def answer(self, message: Message, *, caller: Caller, deadline: float, fresh: bool = False) -> Reply:
        """The whole answer by `deadline` (the event loop's time), not one given before where it is to be `fresh`. Raises Problem."""
        work = await self._begin(message, caller, deadline, fresh=fresh)
        if self._answers is None or fresh:
            answer = await self._ask(work)
        else:
            key = self._answers.key(work.prompt, caller)
            try:
                answer = await self._answers.once(key, lambda: self._ask(work), deadline=deadline)
            except TimeoutError:
                raise _too_late() from None
        await self._remember(work, answer.completion.text)
        return _reply(new_message_id(), message, answer, answer.completion.text)

    async def stream(self, message: Message, *, caller: Caller, deadline: float, emit: Emit, fresh: bool = False) -> Reply:
        """Hand every piece of the answer to `emit` by `deadline`, and return the answer without its text. Raises Problem."""
        work = await self._begin(message, caller, deadline, fresh=fresh)
        message_id = new_message_id()
        key, answer = "", None
        if self._answers is not None and not fresh:
            key = self._answers.key(work.prompt, caller)
            answer = await self._answers.find(key)
        if answer is not None:
            await emit(Reply(message_id, message, answer.completion.text, answer.model))
        else:
            answer = await self._ask_for_pieces(work, message_id, emit)
            if self._answers is not None and key:
                await self._answers.keep(key, answer)
        await self._remember(work, answer.completion.text)
        return _reply(message_id, message, answer, "")

    async def _begin(self, message: Message, caller: Caller, deadline: float, *, fresh: bool) -> _Work:
        """What is to be asked. Raises Problem for what cannot be."""
        asking = self._asking
        session: SessionKey | None = None
        turns: tuple[Turn, ...] = ()
        text = message.prompt()
        if self._conversations is not None and message.context_id:
            session = self._conversations.key(message, caller)
            turns = () if session is None else await self._conversations.before(session)
        prompt = Prompt(text, asking.max_tokens, asking.system, turns)
        if asking.max_input_tokens and tokens_of(prompt.length) > asking.max_input_tokens:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                ErrorType.CONTEXT_LENGTH,
                f"With what was said before this is about {tokens_of(prompt.length)} tokens; at most {asking.max_input_tokens} are asked.",
            )
        if fresh and self._answers is not None:
            bypassed()
        return _Work(message, caller, prompt, session, deadline, fresh)

    async def _remember(self, work: _Work, text: str) -> None:
        if work.session is not None and self._conversations is not None:
            await self._conversations.add(work.session, work.prompt.text, text)

    async def _ask(self, work: _Work) -> Answer:
        """Ask a model for a whole answer."""
        return await self._inside(work, lambda prompt: self._once(work, prompt))

    async def _ask_for_pieces(self, work: _Work, message_id: str, emit: Emit) -> Answer:
        """Ask a model for an answer piece by piece, and hand these on."""
        return await self._inside(work, lambda prompt: self._once_in_pieces(work, prompt, message_id, emit))

    async def _inside(self, work: _Work, ask: Callable[[Prompt], Awaitable[Answer]]) -> Answer:
        """Ask once there is a place, once or until the model has called its tools."""
        await self._come_in(work.deadline)
        try:
            return await (ask(work.prompt) if self._steps is None else self._steps.take(work.prompt, ask, deadline=work.deadline))
        finally:
            self._leave()

    async def _once(self, work: _Work, prompt: Prompt) -> Answer:
        calls = self._calls_for(work.prompt)
        if self._spending is None:
            return Answer(*await calls.complete(prompt, deadline=work.deadline))
        bill, call = Bill(), await self._reserve(self._spending, work, prompt)
        try:
            return Answer(*await calls.complete(prompt, deadline=work.deadline, bill=bill))
        finally:
            self._spending.settle(call, bill, work.caller)

    async def _once_in_pieces(self, work: _Work, prompt: Prompt, message_id: str, emit: Emit) -> Answer:
        heard = _Pieces(work.message, message_id, emit)
        calls = self._calls_for(work.prompt)
        if self._spending is None:
            return heard.answer(await calls.stream(prompt, deadline=work.deadline, emit=heard.forward))
        bill, call = Bill(), await self._reserve(self._spending, work, prompt)
        try:
            return heard.answer(await calls.stream(prompt, deadline=work.deadline, emit=heard.forward, bill=bill))
        finally:
            self._spending.settle(call, bill, work.caller)

    def _calls_for(self, prompt: Prompt) -> ModelCalls:
        """Who is asked: a cheaper model where the question is simple."""
        simple = self._simple
        return self._calls if simple is None or prompt.length > simple.max_chars else simple.calls

    async def _reserve(self, spending: Spending, work: _Work, prompt: Prompt) -> str:
        return await spending.reserve(prompt, work.caller, seconds=max(0.0, work.deadline - running_loop().time()))

    async def _come_in(self, deadline: float) -> None:
        """Take a slot and a worker; `_leave` gives them back. Raises Problem where there is none in time."""
        if not self.slots.enter():
            await self._wait_for(self.slots, deadline)
        try:
            if self._asking.overhead:
                await asyncio.sleep(self._asking.overhead)
            if not self.workers.enter():
                await self._wait_for(self.workers, deadline)
        except BaseException:
            self.slots.release()
            raise

    def _leave(self) -> None:
        self.workers.release()
        self.slots.release()

    async def _wait_for(self, gate: Gate, deadline: float) -> None:
        began = running_loop().time()
        try:
            await gate.acquire(deadline=deadline)
        except TimeoutError:
            raise _too_late() from None
        finally:
            sage_obs.observe(QUEUE_WAIT, running_loop().time() - began, self._agent)


def _too_late() -> Problem:
    return Problem(HTTPStatus.GATEWAY_TIMEOUT, ErrorType.TIMEOUT, "The request waited too long for its turn.")


def _reply(message_id: str, message: Message, answer: Answer, text: str) -> Reply:
    usage = answer.completion.usage
    asked, answered = (usage.input, usage.output) if usage else (None, None)
    return Reply(message_id, message, text, answer.model, asked, answered, cached=answer.cached, tools=answer.tools)
