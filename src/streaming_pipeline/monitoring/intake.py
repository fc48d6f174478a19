"""Are too many of the new records rejected, or repeated? Held against fixed limits, so that the first look can say it too."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streaming_pipeline.core.wording import plural

MIN_RECORDS = 20
"""Of fewer new records no share is judged."""
_MOST_REASONS = 3


@dataclass(frozen=True)
class Intake:
    """What became of the records that are new since the last look; `reasons` has the rejected ones by reason."""

    events: int
    rejected: int
    repeated: int
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """All of them."""
        return self.events + self.rejected + self.repeated

    def problems(self, rejected_limit_pct: float, repeated_limit_pct: float) -> dict[str, str]:
        """Kind of finding → a sentence, for each share that is above its limit; none of fewer than `MIN_RECORDS` records."""
        found = {}
        if self.records >= MIN_RECORDS:
            if 100 * self.rejected > rejected_limit_pct * self.records:
                limit = "" if self.rejected == self.records else f", the limit is {rejected_limit_pct:g} %"
                found["records_rejected"] = f"{self.rejection}{limit}"
            if 100 * self.repeated > repeated_limit_pct * self.records:
                found["records_repeated"] = (
                    f"{self.repeated:,} of {plural(self.records, 'record')} repeat an event, the limit is {repeated_limit_pct:g} %"
                )
        return found

    @property
    def rejection(self) -> str:
        """How many were rejected and for what, in a sentence; empty if none was."""
        if not self.rejected:
            return ""
        most = sorted(self.reasons.items(), key=lambda reason: (-reason[1], reason[0]))
        listed = ", ".join([*(f"{reason} {count:,}" for reason, count in most[:_MOST_REASONS]), *["…"][: len(most) - _MOST_REASONS]])
        doubt = ": is this the right contract?" if self.rejected == self.records else ""
        return f"{self.rejected:,} of {plural(self.records, 'record')} rejected{f' ({listed})' if listed else ''}{doubt}"
