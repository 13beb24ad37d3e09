"""What servers say where they refuse a request, and what follows: without which keys they are asked, and when a job ends."""

import email.utils
import hashlib
import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prefdelta.endpoint.answers import Body, Choice
from prefdelta.endpoint.serving import EndpointError
from prefdelta.endpoint.store import Store

log = logging.getLogger(__name__)

_SHOWN = 500  # characters of what a server says
_ALIKE = 4  # refusals in the same words, before any answer, that end a job
_FEW, _SHARE = 20, 0.05  # a job goes on with so many refusals, or such a share of its requests ...
_ROW = 20  # ... unless so many questions in a row have none but these
_DECLINES = 100  # for content or length, before any answer, that end a job


class Refusal(Exception):
    """A request was refused. ``said`` is why, ``keys`` the parts of the request that are at fault, ``pause`` seconds to wait."""

    def __init__(self, status: int, content: str | bytes, headers: Mapping[str, str] | None = None) -> None:
        """``content``: of the answer, JSON or any text."""
        self.status = status
        self.pause = retry_after(headers or {})
        self.keys: list[str] = []
        text = content.decode(errors="replace") if isinstance(content, bytes) else content
        told = dict.fromkeys(" ".join(each.split()) for each in self._read(text, 0))  # in order, each once
        self.said = "; ".join(each for each in told if each)[:_SHOWN]
        super().__init__(f"{status}: {self.said}")

    def _read(self, content: Any, depth: int) -> Iterator[str]:
        """All that tells of the reason, of whichever form: objects, lists, and JSON within texts."""
        if isinstance(content, str):
            if content.lstrip()[:1] in ("{", "["):
                try:
                    content = json.loads(content)
                except (ValueError, RecursionError):
                    yield content
                    return
            else:
                yield content
                return
        if depth > 8:
            return
        if isinstance(content, list):
            for each in content[:50]:
                yield from self._read(each, depth + 1)
        elif isinstance(content, dict):
            for key, value in content.items():
                if key in ("param", "field") and isinstance(value, str):
                    self.keys.append(value)
                elif key == "loc" and isinstance(value, list):  # pydantic's
                    self.keys += [str(part) for part in value if part not in ("body", "request")][:1]
                elif key in _TELLING:
                    yield from self._read(value, depth + 1)

    @property
    def declined(self) -> str | None:
        """Why the server declines what the request contains, if it is that."""
        found = [reason for reason, pattern in _DECLINED.items() if pattern.search(self.said)]
        return found[0] if self.status in (400, 403, 413, 422, 500) and found else None

    @property
    def broke(self) -> bool:
        """Whether no money is left. 413 and 429 speak of size and rate, also in words of a quota, unless they are plain."""
        said = re.sub(r"https?://\S+", "", self.said)  # a rate limit may name the page where one pays for a higher one
        words = self.status in (400, 403, 404, 422) and _MONEY.search(said) and _LACKING.search(said)
        return self.status == 402 or bool(not self.declined and (words or _BROKE.search(said)))

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered later."""
        if self.broke or self.declined:
            return False
        return self.status in (408, 409, 425, 429, 498) or (self.status >= 500 and self.status not in (501, 505))


_TELLING = {"error", "errors", "message", "msg", "detail", "details", "description", "fieldViolations", "metadata", "raw"}
_TELLING |= {"code", "type", "reason", "reasons", "innererror"}

# What servers say of a request whose content they decline.
TOO_LONG = "longer than the model's context"
_DECLINED = {
    TOO_LONG: re.compile(
        r"context.?(length|window|size|limit)|context the overflows|too long|too many (input )?tokens|input token count"
        r"|longer than the (model|maximum)|maximum (number of )?(input )?tokens|reduce the length|must have less than \d+ tokens"
        r"|max_new_tokens. must be <=",
        re.I,
    ),
    "refused by a content filter": re.compile(
        r"content.?filter|content.?(management.)?policy|moderation|flagged|responsibleai|safety (system|policy|filter)", re.I
    ),
}
# What they say where an account has no money: plainly, or with one word for money and one for its lack.
_BROKE = re.compile(
    r"insufficient.{0,8}(quota|credit|balance|fund)|(credit|account) balance|arrears?\b|arrearage|payment (is )?required"
    r"|out of (credit|fund|money)|(credits?|balance|funds) (is|are|was|were|has been|have been) (too low|exhausted|depleted|used)"
    r"|billing.?hard.?limit|used all (of )?(your |its |the )?(available )?(free |prepaid )?credit|(monthly )?spend(ing)? limit",
    re.I,
)
_MONEY = re.compile(r"\b(credits?|balance|quota|billing|payments?|funds|prepaid|api usage limits?)\b", re.I)
_LACKING = re.compile(
    r"insufficient|exceed|\blow\b|not enough|\bno\b|out of|exhaust|deplet|used up|requir|purchase|upgrade|add |top.?up|recharge"
    r"|overdue|past due|check|limit|negative|suspend|inactive|not active|disabled|reached|failed|zero",
    re.I,
)
# What they say of a key that they don't know, or take with other values only ...
_UNKNOWN = re.compile(
    r"(not|n't|no longer|cannot|never)\b|\bun(supported|known|recogni[sz]ed|expected)|extra|forbidden|invalid|deprecated"
    r"|disallowed|\b(must|only|should)\b",
    re.I,
)
# ... and of some keys in other words than its name.
_NAMED = {
    "response_format": re.compile(r"response.?format|json_schema|structured.output|guided|json mode|grammar", re.I),
    "max_tokens": re.compile(r"max_completion_tokens"),
    "n": re.compile(
        r"""['"`]n['"`]|\bn\s*(>|<|=|!=|must|should|is not|has to)|(multiple|several|more than one|one|single) """
        r"""(completion )?(choice|completion|candidate|generation)|candidate.?count""",
        re.I,
    ),
}
_SPARED = ("response_format", "max_tokens", "n", "seed")  # asking without them changes nothing that is wanted
_DEFAULTS = {"temperature": 1, "top_p": 1}  # nor does it with these values
_OF_ALL = {401, 402, 405, 407, 410, 501, 505}  # statuses that no other request would fare better with; so is a redirect
# How the reasons begin why a request has no answer, where none is known.
_REFUSED, _FAILED = "declined by the endpoint with status", "failed at each try, with"


class Failure(Exception):
    """A request has failed at each of its tries. ``kind``: how, in few words."""

    def __init__(self, told: str, kind: str, *, meanwhile: bool, own: bool) -> None:
        """``meanwhile``: others were answered between its tries. ``own``: it may be the request's own fault."""
        super().__init__(told)
        self.kind, self.meanwhile, self.own = kind, meanwhile, own


class Terms:
    """The terms on which a server answers, as found out so far, and how often it has refused.

    ``omit`` are keys that requests are known to do without, whatever they say.
    """

    def __init__(self, base_url: str, omit: frozenset[str]) -> None:
        self.base_url, self.omit = base_url, omit
        self.store: Store  # once there is one (`keep`)
        self.learned: dict[str, list[str]] = {}  # by model: the keys that it does not know
        # How many requests were answered (also by the store), refused for no known reason, and declined for one.
        self.answers = self.refused = self.declined = 0
        self.plural = False  # whether it has made several choices
        self._said: Counter[str] = Counter()
        self._last = ""
        self._lonely = 0  # failures in a row during which nobody was answered

    def keep(self, store: Store) -> None:
        """From now on what is learned is kept in ``store``; what was learned before is known."""
        self.store, self.learned = store, store.learned()
        for model, keys in self.learned.items():
            log.info("%s: %s does not know `%s`, as was found out before", self.base_url, model, "`, `".join(keys))

    def lacks(self, body: Body) -> set[str]:
        """The keys that the model of ``body`` does without."""
        return {*self.omit, *self.learned.get(body["model"], ())}

    def learn(self, key: str, body: Body) -> None:
        """Takes note of a key that the model of ``body`` does not know, and says so the first time. Raises StoreError."""
        if key not in self.lacks(body):
            log.warning("%s does not know `%s`: going on without it", self.base_url, key)
            self.learned = self.store.learn(body["model"], key)

    def parts(self, body: Body) -> list[Body]:
        """``body`` as the server takes it, in one request or as single ones with successive seeds."""
        return adapted(body, {key for key in self.lacks(body) if key in self.omit or _spared(key, body)})

    def sent(self, body: Body) -> Body:
        """What is sent of ``body``. A seed that is left out stays in the store's key: so repeats remain draws of their own."""
        return {key: value for key, value in body.items() if key != "seed"} if "seed" in self.lacks(body) else body

    def blamed(self, refusal: Refusal, sent: Body) -> list[str]:
        """The keys of a request that a refusal is about: those that it names as such, or else in its words."""
        if refusal.declined or refusal.status not in (400, 422, 501):
            return []
        roots = {re.split(r"[.\[]", key)[0] for key in refusal.keys}
        if roots & {"model", "messages"}:
            return []
        present = [key for key in sent if key not in ("model", "messages") and (key, sent[key]) != ("n", 1)]
        found = [key for key in present if key in roots]
        if not found:
            found = [key for key in present if key in _NAMED and _NAMED[key].search(refusal.said)]
        if not found and _UNKNOWN.search(refusal.said):
            words = set(re.findall(r"\w+", refusal.said))
            found = [key for key in present if len(key) > 1 and key in words]
        # `max_tokens` has another name with some servers; one that finds it too large knows it.
        return [key for key in found if key != "max_tokens" or _NAMED[key].search(refusal.said)]

    def puzzled(self, refusal: Refusal, sent: Body) -> bool:
        """Whether a server that has not made several choices yet refuses them, perhaps for that reason, in words of its own."""
        mute = refusal.status in (400, 422) and not refusal.declined and not self.blamed(refusal, sent)
        return mute and sent.get("n", 1) > 1 and not self.plural

    def refuse(self, refusal: Refusal, sent: Body) -> str | None:
        """What follows from the refusal of ``sent``: the reason why it has no answer, or None where it is to be asked again.

        Raises EndpointError where the job must end: for what is wrong with all requests, or with too many.
        """
        if refusal.broke:
            raise EndpointError(f"{self.base_url} refuses requests for want of money or credit: {refusal}")
        if reason := refusal.declined:
            self.declined += 1
            if self.declined == 1:
                log.warning("%s declined a request: %s", self.base_url, refusal)
            if self.declined >= _DECLINES and not self.answers:
                raise EndpointError(f"{self.base_url} declined {self.declined} requests, and answered none: {refusal}")
            return reason
        blamed = self.blamed(refusal, sent)
        if spared := [key for key in blamed if _spared(key, sent)]:
            self.learn(spared[0], sent)
            return None
        if blamed and not self.answers:
            raise EndpointError(
                f"{self.base_url} does not take `{blamed[0]}` = {sent[blamed[0]]!r} ({refusal}). Without it answers would "
                f"differ, so say that this is meant: `omit: [{blamed[0]}]` among the keys of the endpoint"
            )
        if refusal.status < 400 or refusal.status in _OF_ALL:
            raise EndpointError(f"{self.base_url} failed: {refusal}")
        self._count(str(refusal))
        return f"{_REFUSED} {refusal.status}"

    def fail(self, failure: Failure) -> str:
        """The reason why a request has no answer that failed while others were answered.

        Raises EndpointError where the job must end: where it is the server that fails, or too many fail.
        """
        self._lonely = 0 if failure.meanwhile else self._lonely + 1
        if self._lonely and not (failure.own and self.answers and self._lonely < _ALIKE):
            raise EndpointError(f"{self.base_url} {failure}")
        self._count(str(failure))
        return f"{_FAILED} {failure.kind}"

    def _count(self, told: str) -> None:
        """Counts a request without an answer. Raises EndpointError where there are too many."""
        self._last = told
        self.refused += 1
        self._said[re.sub(r"\d+", "", told)[:100]] += 1
        if self.refused == 1 or (self.answers and self.refused <= _FEW):
            log.warning("%s refused a request: %s", self.base_url, told)
        if self.answers:
            too_many = self.refused > max(_FEW, _SHARE * (self.answers + self.refused))
        else:
            too_many = self.refused >= _FEW or max(self._said.values()) >= _ALIKE
        if too_many:
            raise EndpointError(f"{self.base_url} refused {self.refused} requests, and answered {self.answers}: {told}")

    def check(self) -> None:
        """To be called at the end. Raises EndpointError where there were refusals and no answers, or many and fewer answers."""
        if self.refused and not self.answers:
            raise EndpointError(f"{self.base_url} refused all requests: {self._last}")
        if self.refused >= _ALIKE and self.refused > self.answers:
            raise EndpointError(f"{self.base_url} refused {self.refused} requests, and answered {self.answers}: {self._last}")


class Row:
    """Looks for many questions in a row without an answer: an account that has run dry, or a server that has changed its mind.

    The row is that of the requests, so it is the same in a rerun, where all the others come from the store at once; and it is
    counted in questions, for one that is refused may be asked many times.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._refused: dict[int, bytes] = {}  # digests of what was asked

    def add(self, number: int, body: Body, made: list[Choice]) -> None:
        """Takes note of the answer to request ``number``. Raises EndpointError where the row is too long."""
        reason = made[0].declined or ""
        if not reason.startswith((_REFUSED, _FAILED)):
            return
        self._refused[number] = hashlib.blake2b(json.dumps(body["messages"]).encode(), digest_size=8).digest()
        row = set()
        for step in (-1, 1):
            place = number
            while place in self._refused:
                row.add(self._refused[place])
                place += step
        if len(row) >= _ROW:
            raise EndpointError(
                f"{self.base_url} has answered none of {len(row)} questions in a row ({reason}; see the log for its words). "
                "What it answered before is kept: run again once it works"
            )


def _spared(key: str, body: Body) -> bool:
    return key in _SPARED or (key in _DEFAULTS and body.get(key) == _DEFAULTS[key])


def adapted(body: Body, lacks: set[str]) -> list[Body]:
    """``body`` without the keys ``lacks``, but with its seed; for several choices single requests with successive seeds."""
    single = {key: value for key, value in body.items() if key not in lacks or key == "seed"}
    if "max_tokens" in lacks and "max_tokens" in body:
        single["max_completion_tokens"] = body["max_tokens"]
    if "n" not in lacks or body.get("n", 1) == 1:
        return [{**single, "n": body["n"]} if "n" in body else single]
    return [{**single, "seed": body["seed"] + number} for number in range(body["n"])]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds for which a server asks to be left alone, by its header Retry-After (seconds or a date) or retry-after-ms.

    None where it says nothing that is a time; infinity for a date beyond the calendar.
    """
    try:
        milli = headers.get("retry-after-ms")
        seconds = float(headers["retry-after"]) if milli is None else float(milli) / 1000
    except KeyError:
        return None
    except ValueError:
        try:
            date = email.utils.parsedate_tz(headers.get("retry-after", ""))
            return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
        except (ValueError, OverflowError):
            return math.inf
    return max(0.0, seconds) if math.isfinite(seconds) else None
