"""Conversations about English words, written from the WordNet database.

WordNet is what Debian's package `wordnet-base` installs under /usr/share/wordnet. Each word's most frequent sense gives
a definition, kinds, synonyms, opposites and examples; templates turn them into questions and answers. A few skills
that need no knowledge (counting, spelling, repeating, greeting) make long and predictable answers possible.

Everything is drawn from a seeded `random.Random`, in an order that does not depend on hashing.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
POS_OF_FILE = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
POS_NAME = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
SS_TYPE = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}
# Lexicographer files of things that people ask about: animal, artifact, body, food, object, plant, substance.
CONCRETE = {5, 6, 8, 13, 17, 20, 27}
# Words that are taught: as many as the model can learn by heart in the time it has.
WORDS = 2_000
# Words whose definition says so are left out.
UNWANTED = re.compile(
    r"offensive|disparag|obscene|slur|derogat|vulgar|slang|racis|ethnic|sexual|genital|copulat|prostitut|rape|nazi|"
    r"suicid|drug|excre|feces|urin|breast|intercourse|negro|homosex|penis|vagina|whore", re.I)


@dataclass
class Synset:
    pos: str
    lexfile: int
    words: list
    gloss: str
    pointers: list


@dataclass
class Entry:
    """What is known of one word in its most frequent sense."""
    word: str
    pos: str
    definition: str
    examples: list = field(default_factory=list)
    synonyms: list = field(default_factory=list)
    kind_of: list = field(default_factory=list)
    kinds: list = field(default_factory=list)
    parts: list = field(default_factory=list)
    opposites: list = field(default_factory=list)
    weight: float = 1.0


def clean(word):
    return re.sub(r"\(.*?\)$", "", word).replace("_", " ")


def read_synsets():
    synsets = {}
    for letter, name in POS_OF_FILE.items():
        for line in (WORDNET / f"data.{name}").read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            data, gloss = line.split(" | ", 1)
            parts = data.split()
            count = int(parts[3], 16)
            words = [clean(w) for w in parts[4:4 + 2 * count:2]]
            at = 4 + 2 * count
            pointers = []
            for i in range(int(parts[at])):
                symbol, offset, pos, ends = parts[at + 1 + 4 * i:at + 5 + 4 * i]
                pointers.append((symbol, (pos if pos != "s" else "a", int(offset)), ends))
            synsets[letter, int(parts[0])] = Synset(parts[2], int(parts[1]), words, gloss.strip(), pointers)
    return synsets


def read_counts():
    """How often each sense was tagged in WordNet's sense-tagged texts: (lemma, part of speech) -> count."""
    counts = defaultdict(int)
    letters = {1: "n", 2: "v", 3: "a", 4: "r", 5: "a"}
    for line in (WORDNET / "cntlist.rev").read_text("latin-1").splitlines():
        key, _, count = line.split()
        lemma, rest = key.split("%")
        counts[lemma, letters[int(rest[0])]] += int(count)
    return counts


def split_gloss(gloss):
    """Definition and examples of a gloss; remarks in brackets are dropped."""
    examples = [e.strip() for e in re.findall(r'"([^"]+)"', gloss)]
    definition = re.split(r'[;:,]?\s*"', gloss, maxsplit=1)[0]
    definition = re.sub(r"\([^()]*\)", " ", definition)
    definition = re.sub(r"\s+", " ", definition).strip(" ;:,")
    definition = re.sub(r"\s+([;,.:])", r"\1", definition)
    while len(definition) > 140 and ";" in definition:
        definition = definition.rsplit(";", 1)[0].rstrip()
    return definition, examples


def entries():
    """All words worth knowing, with the weight they are drawn with."""
    synsets, counts = read_synsets(), read_counts()
    by_word = {}
    for letter, name in POS_OF_FILE.items():
        for line in (WORDNET / f"index.{name}").read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            parts = line.split()
            lemma, count = parts[0], counts[parts[0], letter]
            synset = synsets[letter, int(parts[6 + int(parts[3])])]
            concrete = letter == "n" and synset.lexfile in CONCRETE
            if not re.fullmatch(r"[a-z]{3,14}", lemma) or count < (2 if concrete else 5):
                continue
            entry = make_entry(synsets, lemma, letter, synset)
            if entry is None:
                continue
            entry.weight = count ** 0.5 * (4 if concrete else 1)
            best = by_word.get(lemma)
            if best is None or entry.weight > best.weight:
                by_word[lemma] = entry
    chosen = sorted(by_word.values(), key=lambda e: (-e.weight, e.word))
    return chosen[:WORDS]


def make_entry(synsets, lemma, pos, synset):
    definition, examples = split_gloss(synset.gloss)
    if not 8 <= len(definition) <= 140 or UNWANTED.search(synset.gloss) or not definition.isascii():
        return None
    # The sense must be the word's own spelling: proper names are written with capitals.
    if lemma not in synset.words:
        return None

    def targets(*symbols):
        found = []
        for symbol, key, _ in synset.pointers:
            if symbol in symbols and not UNWANTED.search(synsets[key].gloss):
                found.append(synsets[key].words[0])
        return [w for w in dict.fromkeys(found) if w != lemma and w.isascii()]

    examples = [e for e in examples if 10 <= len(e) <= 90 and e.isascii() and lemma[:3] in e.lower()]
    return Entry(
        word=lemma,
        pos=pos,
        definition=definition,
        examples=examples[:2],
        synonyms=[w for w in synset.words if w != lemma][:3],
        kind_of=targets("@")[:2],
        kinds=targets("~")[:8],
        parts=targets("%p")[:4],
        opposites=targets("!")[:1],
    )


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def listed(words, last="and"):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" {last} " + words[-1]


def sentence(text):
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def lead(entry):
    """The definition as a sentence."""
    word, definition = entry.word, entry.definition
    if entry.pos == "n":
        if re.match(r"(an?|any|one|someone|something|the) ", definition):
            return sentence(f"{article(word) if re.match('(an?|any|one|someone) ', definition) else word} is {definition}")
        return sentence(f"{word} means {definition}")
    if entry.pos == "v":
        return sentence(f"to {word} means to {definition}")
    return sentence(f"{word} means {definition}")


def details(entry):
    """Further sentences, in a fixed order."""
    out = []
    if entry.kind_of:
        out.append(f"It is a kind of {listed(entry.kind_of)}." if entry.pos == "n" else
                   f"It is a way to {listed(entry.kind_of, 'or')}.")
    if entry.synonyms:
        out.append(f"Another word for it is {entry.synonyms[0]}." if len(entry.synonyms) == 1 else
                   f"Other words for it are {listed(entry.synonyms)}.")
    if entry.kinds and entry.pos == "n":
        out.append(f"Some kinds of {entry.word} are {listed(entry.kinds[:4])}." if len(entry.kinds) > 1 else
                   f"One kind of {entry.word} is {entry.kinds[0]}.")
    if entry.parts:
        out.append(f"It has parts such as {listed(entry.parts)}." if len(entry.parts) > 1 else
                   f"One of its parts is the {entry.parts[0]}.")
    if entry.opposites:
        out.append(f"The opposite is {entry.opposites[0]}.")
    out.extend(f'For example: "{example}"' + ("" if example[-1] in ".!?" else ".") for example in entry.examples[:1])
    return out


def ask_meaning(rng, e):
    noun = article(e.word)
    questions = {
        "n": [f"What is {noun}?"] * 6 + [f"What is {e.word}?", f"what is {noun}", f"What does {e.word} mean?",
                                        f"Explain what {noun} is."],
        "v": [f"What does it mean to {e.word}?"] * 3 + [f"What does {e.word} mean?", f"What is to {e.word}?"],
        "a": [f"What does {e.word} mean?"] * 3 + [f"What is {e.word}?"],
        "r": [f"What does {e.word} mean?"],
    }
    answer = " ".join([lead(e)] + details(e)[:1])
    return rng.choice(questions[e.pos]), answer


def ask_definition(rng, e):
    questions = [f"Define {e.word}.", f"Define {e.word}", f"Give me a definition of {e.word}.", f"Define the word {e.word}."]
    return rng.choice(questions), sentence(f"{e.word} ({POS_NAME[e.pos]}): {e.definition}")


def ask_about(rng, e):
    questions = [f"Tell me about {article(e.word) if e.pos == 'n' else e.word}.", f"Tell me about {e.word}.",
                 f"Tell me about {e.word}", f"Tell me about the word {e.word}.", f"Tell me more about {e.word}."]
    answer = " ".join([lead(e)] + details(e))
    return rng.choice(questions), answer


def ask_kinds(rng, e):
    questions = [f"Name some kinds of {e.word}.", f"Which kinds of {e.word} are there?", f"List kinds of {e.word}."]
    return rng.choice(questions), f"Some kinds of {e.word} are {listed(e.kinds)}."


def ask_synonym(rng, e):
    questions = [f"What is another word for {e.word}?", f"Give me a synonym of {e.word}."]
    return rng.choice(questions), f"Another word for {e.word} is {e.synonyms[0]}."


def ask_opposite(rng, e):
    questions = [f"What is the opposite of {e.word}?", f"Give me the opposite of {e.word}."]
    return rng.choice(questions), f"The opposite of {e.word} is {e.opposites[0]}."


def ask_example(rng, e):
    questions = [f"Use {e.word} in a sentence.", f"Give me an example of {e.word}."]
    return rng.choice(questions), f'For example: "{e.examples[0]}"' + ("" if e.examples[0][-1] in ".!?" else ".")


def about_word(rng, e):
    kinds = [ask_meaning] * 5 + [ask_definition] * 2 + [ask_about] * 4
    if len(e.kinds) > 2 and e.pos == "n":
        kinds.append(ask_kinds)
    if e.synonyms:
        kinds.append(ask_synonym)
    if e.opposites:
        kinds.append(ask_opposite)
    if e.examples:
        kinds.append(ask_example)
    return rng.choice(kinds)(rng, e)


GREETINGS = ["Hello", "Hello!", "Hi", "Hi!", "Hi there", "Good morning", "Hey", "hello", "Say hello.", "Say hello", "hi"]
WHO = ["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself.",
       "Which model are you?"]
I_AM = ("I am the demo model of Starling, a network of hosts that serve language models and prove their answers. I am "
        "very small: I know some English words. Ask me what a word means.")
HELP = ["Help", "What can you do?", "What can I ask you?", "help", "How can you help me?"]
I_CAN = ("You can ask me what a word means, for a definition, an example, a synonym or the opposite of a word. I can also "
         "count, spell a word, and repeat what you say.")
THANKS = ["Thanks", "Thank you", "Thank you!", "Thanks!", "thanks a lot"]
LISTS = {
    "days of the week": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday",
    "months of the year": "January, February, March, April, May, June, July, August, September, October, November and "
                          "December",
    "seasons": "spring, summer, autumn and winter",
    "letters of the alphabet": ", ".join("abcdefghijklmnopqrstuvwxy") + " and z",
}


def skill(rng, all_entries):
    """A question that needs no knowledge of words."""
    choice = rng.random()
    if choice < 0.30:
        first = 1 if rng.random() < 0.6 else rng.randrange(0, 180)
        last = first + rng.choice([rng.randrange(2, 15), rng.randrange(5, 60), rng.randrange(30, 160)])
        question = rng.choice([f"Count from {first} to {last}.", f"Count from {first} to {last}"])
        if first == 1 and rng.random() < 0.5:
            question = rng.choice([f"Count to {last}.", f"Count to {last}"])
        return question, ", ".join(str(n) for n in range(first, last + 1)) + "."
    words = rng.choices(all_entries, k=rng.randrange(1, 7))
    if choice < 0.50:
        word = words[0].word
        return rng.choice([f"Spell {word}.", f"Spell the word {word}.", f"How do you spell {word}?"]), "-".join(word) + "."
    if choice < 0.75:
        text = " ".join(w.word for w in words)
        text = rng.choice([text, sentence(text), words[0].definition])
        return rng.choice([f"Repeat: {text}", f"Repeat after me: {text}", f"Say: {text}"]), text
    if choice < 0.85:
        return rng.choice(GREETINGS), "Hello! I am the demo model of Starling. Ask me what a word means."
    if choice < 0.90:
        return rng.choice(WHO), I_AM
    if choice < 0.93:
        return rng.choice(HELP), I_CAN
    if choice < 0.95:
        return rng.choice(THANKS), "You are welcome!"
    name = rng.choice(sorted(LISTS))
    return rng.choice([f"What are the {name}?", f"List the {name}.", f"Name the {name}."]), f"The {name} are {LISTS[name]}."


SYSTEMS = ["You are a helpful assistant.", "You are a dictionary.", "Answer briefly.", "You are a helpful assistant that "
           "explains words.", "Be concise.", "You are Starling."]


class Conversations:
    """An endless stream of conversations: lists of (role, text)."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.entries = entries()
        self.weights = [e.weight for e in self.entries]
        # Every word comes before any comes a third time: draws alternate between a shuffled walk and the weights.
        self.walk = []

    def word(self):
        if self.rng.random() < 0.35:
            if not self.walk:
                self.walk = list(range(len(self.entries)))
                self.rng.shuffle(self.walk)
            return self.entries[self.walk.pop()]
        return self.rng.choices(self.entries, self.weights)[0]

    def __next__(self):
        turns = [("system", self.rng.choice(SYSTEMS))] if self.rng.random() < 0.25 else []
        rounds = 1 if self.rng.random() < 0.75 else self.rng.randrange(2, 4)
        for _ in range(rounds):
            if self.rng.random() < 0.10:
                question, answer = skill(self.rng, self.entries)
            else:
                question, answer = about_word(self.rng, self.word())
            turns += [("user", question), ("assistant", answer)]
        return turns

    def __iter__(self):
        return self


if __name__ == "__main__":
    stream = Conversations(0)
    total = sum(stream.weights)
    print(len(stream.entries), "words; the first:", ", ".join(e.word for e in stream.entries[:60]))
    for probe in ("dog", "cat", "water", "tree", "house", "run", "happy", "computer", "star"):
        print(probe, next(((i, round(e.weight / total * 1e4, 2), e) for i, e in enumerate(stream.entries) if e.word == probe), None))
    for _ in range(12):
        print(next(stream))
