"""Judges what a client of a streamed answer saw. It knows nothing of routers, journals or replicas:
its only evidence is the payloads that came over HTTP and an undisturbed run's answer."""

import json
import time


class Transcript:
    """What one client received: (seconds, payload) in order of arrival, and how the connection ended."""

    def __init__(self, name=""):
        self.name, self.arrivals, self.ended = name, [], None
        self.status = None

    def add(self, payload, at=None):
        self.arrivals.append((time.monotonic() if at is None else at, payload))

    def times(self):
        """When each chunk with tokens came."""
        return [at for at, payload in self.arrivals if tokens_of(payload)]


def choices_of(payload):
    if payload == "[DONE]":
        return []
    try:
        value = json.loads(payload)
    except ValueError:
        return []
    return value.get("choices") or [] if isinstance(value, dict) else []


def tokens_of(payload):
    return [t for choice in choices_of(payload) for t in choice.get("token_ids") or []]


def text_of(choice):
    if "delta" in choice:
        return choice["delta"].get("content") or ""
    return choice.get("text") or ""


class Answer:
    """An undisturbed run's answer of one choice."""

    def __init__(self, tokens, text, finish_reason):
        self.tokens, self.text, self.finish_reason = list(tokens), text, finish_reason

    def __eq__(self, other):
        return (self.tokens, self.text, self.finish_reason) == (other.tokens, other.text, other.finish_reason)

    def __repr__(self):
        return f"Answer({len(self.tokens)} tokens, {self.text!r}, {self.finish_reason})"


def answer_of(transcript):
    """The answer of a run without faults (one choice)."""
    tokens, text, reason = [], "", None
    for _, payload in transcript.arrivals:
        for choice in choices_of(payload):
            tokens += choice.get("token_ids") or []
            text += text_of(choice)
            reason = choice.get("finish_reason") or reason
    return Answer(tokens, text, reason)


def difference(got, expected):
    """What is wrong with the ids `got`, in the words of exactly-once delivery; None: nothing so far."""
    at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), None)
    if at is None:
        return f"{len(got) - len(expected)} tokens too many" if len(got) > len(expected) else None
    rest = got[at:at + 4]
    if rest == expected[at + 1:at + 1 + len(rest)]:
        return f"gap: token {at} is missing"
    if at and rest == expected[at - 1:at - 1 + len(rest)]:
        return f"duplicate: token {at - 1} came twice"
    if sorted(got[at:at + 2]) == sorted(expected[at:at + 2]):
        return f"reorder: tokens {at} and {at + 1} changed places"
    return f"token {at} is {got[at]} instead of {expected[at]}"


def check(transcript, expected):
    """Sentences that say what is wrong; none: the client saw the undisturbed answer, once."""
    wrong, tokens, text, ids, usage = [], [], "", set(), []
    terminal, done = [], 0
    if transcript.status not in (None, 200):
        return [f"refused with {transcript.status}"]
    for number, (_, payload) in enumerate(transcript.arrivals):
        if done:
            wrong.append(f"payload {number} came after [DONE]")
        if payload == "[DONE]":
            done += 1
            continue
        try:
            value = json.loads(payload)
        except ValueError:
            wrong.append(f"payload {number} is not JSON: {payload[:80]!r}")
            continue
        if "error" in value:
            wrong.append(f"error frame: {value['error'].get('message', value['error'])}")
            continue
        ids.add(value.get("id"))
        if value.get("usage"):
            usage.append(value["usage"]["completion_tokens"])
        for choice in value.get("choices") or []:
            if choice.get("index") != 0:
                wrong.append(f"payload {number} is of choice {choice.get('index')}")
            if terminal and (choice.get("token_ids") or text_of(choice)):
                wrong.append(f"payload {number} brings more after the end")
            tokens += choice.get("token_ids") or []
            text += text_of(choice)
            if choice.get("finish_reason"):
                terminal.append(choice["finish_reason"])
    bad = difference(tokens, expected.tokens)
    if bad:
        wrong.append(bad)
    elif len(tokens) < len(expected.tokens):
        wrong.append(f"gap: only {len(tokens)} of {len(expected.tokens)} tokens came")
    if not bad and text != expected.text:
        wrong.append(f"the text differs: {text!r} instead of {expected.text!r}")
    if len(terminal) != 1:
        wrong.append(f"{len(terminal)} terminal events instead of one")
    elif terminal[0] != expected.finish_reason:
        wrong.append(f"ended by {terminal[0]} instead of {expected.finish_reason}")
    if done != 1:
        wrong.append(f"[DONE] came {done} times" + (f" ({transcript.ended})" if transcript.ended else ""))
    if len(ids) > 1:
        wrong.append(f"chunks of {len(ids)} ids in one stream")
    if usage and usage != [len(expected.tokens)]:
        wrong.append(f"usage says {usage} tokens instead of {len(expected.tokens)}")
    return wrong
