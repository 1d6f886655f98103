"""Names of the policies that nobody trained; policies.py makes them."""

RANDOM, NOOP, WALKER = "random", "noop", "walker"
NAMES = (RANDOM, NOOP, WALKER)
COGAMES = "cogames/"
"""Before the name of a policy that cogames ships."""
VALID = (*NAMES, f"{COGAMES}NAME")


def is_baseline(name: str) -> bool:
    """Whether it names such a policy; a folder of that name is meant by ./NAME."""
    return name in NAMES or name.startswith(COGAMES)
