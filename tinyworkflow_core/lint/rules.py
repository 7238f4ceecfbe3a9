"""What workflow code may not call, why, and what to write instead. A table, and how to look into it.

Names are dotted as the documentation of their module writes them. `*` means everything below: functions, classes, and
the methods of their instances. Exception classes and constants are never meant.
"""

from __future__ import annotations

from ..records import dataclass


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One refusal."""

    why: str
    instead: str
    """`{name}` stands for the last part of the refused name."""
    enough: int | None = None
    """With so many arguments, none of them None, a call is fine; None: no call is."""


_VALUE = "gives another value on each replay"
_AGAIN = "is done again on each replay"
_BESIDE = "runs beside the workflow, where no replay can follow"
_THREAD = "an activity that is a plain `def` (it runs in a thread)"

_NOW = Rule(why=_VALUE, instead="ctx.now()")
_NOW_UNLESS_GIVEN = Rule(why=_VALUE, instead="ctx.now()", enough=1)
_RANDOM = Rule(why=_VALUE, instead="ctx.random()")
_RANDOM_UNLESS_SEEDED = Rule(why=_VALUE, instead="ctx.random()", enough=1)
_DRAW = Rule(why=_VALUE, instead="ctx.random().{name}()")
_UUID = Rule(why=_VALUE, instead="ctx.uuid4()")
_SECRET = Rule(why=_VALUE, instead="await ctx.side_effect(...)")
_PLACE = Rule(why="may differ where the run goes on", instead="an input of the workflow or await ctx.side_effect(...)")
_WORLD = Rule(why=_AGAIN, instead="an activity and await ctx.execute_activity(...)")
_HTTP = Rule(why=_AGAIN, instead="await ctx.call_http(...) or an activity")
_THREADS = Rule(why=_BESIDE, instead="asyncio.gather(...) over activities")

_TABLE: tuple[tuple[str, str, Rule], ...] = (
    # --- time
    ("datetime.datetime", "now utcnow today", _NOW),
    ("datetime.date", "today", Rule(why=_VALUE, instead="ctx.now().date()")),
    ("time", "time time_ns", Rule(why=_VALUE, instead="ctx.now().timestamp()")),
    ("time", "monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns", _NOW),
    ("time", "thread_time thread_time_ns clock_gettime clock_gettime_ns", _NOW),
    ("time", "localtime gmtime ctime asctime", _NOW_UNLESS_GIVEN),
    ("time", "strftime", Rule(why=_VALUE, instead="ctx.now().strftime(...)", enough=2)),
    ("time", "sleep", Rule(why="blocks every run of this process", instead="await ctx.sleep(...)")),
    ("pandas.Timestamp", "now utcnow today", _NOW),
    ("pendulum", "now", _NOW),
    ("arrow", "now utcnow", _NOW),
    ("django.utils.timezone", "now", _NOW),
    # --- chance
    ("uuid", "uuid1 uuid4 uuid6 uuid7", _UUID),
    ("random", "Random", _RANDOM_UNLESS_SEEDED),
    ("random", "SystemRandom seed getstate setstate", _RANDOM),
    ("random", "*", _DRAW),
    ("numpy.random", "default_rng RandomState", _RANDOM_UNLESS_SEEDED),
    ("numpy.random", "*", _DRAW),
    ("secrets", "*", _SECRET),
    ("os", "urandom getrandom", _SECRET),
    # --- this process, this machine
    ("builtins", "hash", Rule(why="differs between processes", instead="hashlib.sha256(...)")),
    ("builtins", "id", Rule(why="differs between processes", instead="ctx.uuid4() or a key of your own")),
    ("os", "environ environb getenv getenvb", _PLACE),
    ("os", "getpid getppid getcwd getlogin uname cpu_count times getloadavg", _PLACE),
    ("uuid", "getnode", _PLACE),
    ("platform", "*", _PLACE),
    ("getpass", "*", _PLACE),
    # --- files
    ("builtins", "open", _WORLD),
    ("io", "open", _WORLD),
    ("os", "open close read write listdir scandir walk stat lstat access remove unlink rename renames replace", _WORLD),
    ("os", "link symlink mkdir makedirs rmdir removedirs chmod chown chdir truncate utime", _WORLD),
    ("os.path", "exists lexists isfile isdir islink getsize getmtime getctime getatime", _WORLD),
    ("pathlib.Path", "read_text read_bytes write_text write_bytes open exists is_file is_dir is_symlink stat", _WORLD),
    ("pathlib.Path", "lstat iterdir glob rglob walk mkdir rmdir unlink touch rename replace chmod", _WORLD),
    ("pathlib.Path", "cwd home resolve expanduser", _WORLD),
    ("glob", "glob iglob", _WORLD),
    ("shutil", "*", _WORLD),
    ("tempfile", "*", _WORLD),
    ("builtins", "input", Rule(why="waits for somebody at this process", instead="await ctx.wait_for_signal(...)")),
    # --- processes, threads, other event loops
    ("subprocess", "*", _WORLD),
    ("os", "system popen fork kill", _WORLD),
    ("asyncio", "create_subprocess_exec create_subprocess_shell", _WORLD),
    ("threading", "*", _THREADS),
    ("multiprocessing", "*", _THREADS),
    ("concurrent.futures", "ThreadPoolExecutor ProcessPoolExecutor InterpreterPoolExecutor", _THREADS),
    ("asyncio", "to_thread", Rule(why=_BESIDE, instead=_THREAD)),
    ("asyncio", "run Runner", Rule(why="starts an event loop that no replay can follow", instead="await")),
    # --- the network
    ("requests", "*", _HTTP),
    ("httpx", "*", _HTTP),
    ("aiohttp", "*", _HTTP),
    ("urllib3", "*", _HTTP),
    ("urllib.request", "urlopen urlretrieve build_opener", _HTTP),
    ("http.client", "HTTPConnection HTTPSConnection", _HTTP),
    ("socket", "*", _WORLD),
    ("asyncio", "open_connection start_server open_unix_connection start_unix_server", _WORLD),
    ("smtplib", "*", _WORLD),
    ("boto3", "*", _WORLD),
    ("google.cloud", "*", _WORLD),
    # --- databases
    ("sqlite3", "connect", _WORLD),
    ("psycopg", "connect", _WORLD),
    ("psycopg2", "connect", _WORLD),
    ("asyncpg", "connect create_pool", _WORLD),
    ("redis", "Redis from_url", _WORLD),
    ("pymongo", "MongoClient", _WORLD),
    ("sqlalchemy", "create_engine", _WORLD),
)

NAMES: tuple[tuple[str, tuple[str, ...]], ...] = tuple((place, tuple(names.split())) for place, names, _ in _TABLE)
"""Each module or class of the table, with what is named below it."""

RULES: dict[str, Rule] = {f"{place}.{name}": rule for place, names, rule in _TABLE for name in names.split()}

BY_ATTRIBUTE: dict[str, Rule] = {"run_in_executor": Rule(why=_BESIDE, instead=_THREAD)}
"""Methods refused on whatever they are called."""

A_SET = Rule(why="has another order in each process", instead="sorted(...)")
A_GLOBAL = Rule(why="lives in this process only", instead="a variable of the workflow")
AN_ACTIVITY = Rule(why="runs the plain function, not recorded", instead="await ctx.execute_activity({name}, ...)")

_FINE = frozenset({
    "secrets.compare_digest", "httpx.URL", "httpx.Timeout", "httpx.Limits", "httpx.Headers", "httpx.QueryParams",
    "aiohttp.ClientTimeout",
})  # fmt: skip
"""Values and pure functions that stand below a `*`."""


def rule_for(name: str) -> tuple[Rule, bool] | None:
    """The rule for a dotted name, and whether the name itself stands in the table (not only a `*` above it)."""
    if rule := RULES.get(name):
        return rule, True
    while name and name not in _FINE:
        name = name.rpartition(".")[0]
        if rule := RULES.get(f"{name}.*"):
            return rule, False
    return None
