"""Random field values (names, images, ports, hosts ...) for the corpus and the Kubernetes data.

Every value is drawn from thousands of possibilities, so a model can only reproduce a second mention
by copying the first one. Words and numbers fall into two disjoint pools by a checksum: the `reserved`
pool is used for held-out rows alone and therefore never occurs in pretraining or tuning.
"""

import random
import zlib

# No consonant both begins and ends a syllable, so a word has one reading only and the tokenizer always
# cuts it between syllables.
ONSETS = "b d f g h j k m p t v z".split()
VOWELS = "a e i o u".split()
CODAS = ["", "n", "r", "l", "s"]
SYLLABLES = [onset + vowel + coda for onset in ONSETS for vowel in VOWELS for coda in CODAS]

# Words that people do put in names; always combined with a random word, so they cannot be guessed.
COMMON = (
    "web api app auth cache cart data db edge front back gate job log mail main media node order pay "
    "proxy queue report search shop site store stream sync task user worker test prod dev stage team "
    "nginx redis mysql postgres kafka python java billing metrics demo backend frontend server client"
).split()
DOMAINS = "com org net io dev cn app cloud example internal local".split()


def is_reserved(text: str) -> bool:
    """One value in eight belongs to the held-out pool; crc32 is stable across Python versions."""
    return zlib.crc32(text.encode()) % 8 == 0


class Values:
    """Draws values from one of the two pools."""

    def __init__(self, rng: random.Random, reserved: bool = False):
        self.rng = rng
        self.reserved = reserved

    def _from_pool(self, draw) -> str:
        while True:
            text = draw()
            if is_reserved(text) == self.reserved:
                return text

    def word(self) -> str:
        """Two or three different syllables such as `kelmo`; hundreds of thousands are possible."""
        count = 2 if self.rng.random() < 0.75 else 3
        return self._from_pool(lambda: "".join(self.rng.sample(SYLLABLES, count)))

    def number(self, low: int, high: int) -> str:
        return self._from_pool(lambda: str(self.rng.randint(low, high)))

    def name(self) -> str:
        """A DNS label such as `kelmo-rati`, `web-kelmo` or `kelmo-rati-17`."""
        shape = self.rng.random()
        if shape < 0.30:
            return self.word()
        if shape < 0.60:
            return f"{self.word()}-{self.word()}"
        if shape < 0.75:
            return f"{self.rng.choice(COMMON)}-{self.word()}"
        if shape < 0.90:
            return f"{self.word()}-{self.rng.choice(COMMON)}"
        return f"{self.word()}-{self.number(1, 99)}"

    def tag(self) -> str:
        """A version such as `3.14`, `v3.14` or `3.14.15`; its numbers are different."""
        while True:
            tag = self._any_tag()
            numbers = tag.lstrip("v").split(".")
            if len(set(numbers)) == len(numbers):
                return tag

    def _any_tag(self) -> str:
        shape = self.rng.random()
        if shape < 0.45:
            return f"{self.number(0, 40)}.{self.number(0, 99)}"
        if shape < 0.75:
            return f"v{self.number(1, 30)}.{self.number(0, 99)}"
        return f"{self.number(0, 30)}.{self.number(0, 60)}.{self.number(0, 99)}"

    def image(self) -> str:
        if self.rng.random() < 0.5:
            return f"{self.word()}:{self.tag()}"
        return f"{self.word()}/{self.word()}:{self.tag()}"

    def port(self) -> str:
        return self.number(1000, 9999) if self.rng.random() < 0.8 else self.number(10000, 39999)

    def count(self) -> str:
        return self.number(2, 99)

    def host(self) -> str:
        inner = self.word() if self.rng.random() < 0.7 else f"{self.word()}.{self.word()}"
        return f"{inner}.{self.rng.choice(DOMAINS)}"

    def path(self) -> str:
        parts = [self.word() for _ in range(self.rng.choice([1, 1, 2]))]
        return "/" + "/".join(parts)

    def key(self) -> str:
        """A setting or label key such as `kelmo_rati`."""
        return "_".join(self.word() for _ in range(self.rng.choice([1, 2])))

    def cpu(self) -> str:
        return self.number(10, 999) + "m"

    def memory(self) -> str:
        return self.number(10, 999) + self.rng.choice(["Mi", "Gi"])

    def schedule(self) -> str:
        """A cron line; the minute and hour are the parts a model must copy."""
        day = self.rng.choice(["* * *", "* * *", f"{self.rng.randint(1, 28)} * *", f"* * {self.rng.randint(0, 6)}"])
        return f"{self.rng.randint(0, 59)} {self.rng.randint(0, 23)} {day}"
