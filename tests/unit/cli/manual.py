"""Every program and file format has a man page, and the pages' options are those that --help knows.

FLOCKER_MAN is the folder with the sources of the pages; its meson.build is given in FLOCKER_MAN_LINKS as "LINK=PAGE ...".
"""

import glob
import os
import re
import sys

import programs

FOLDER = os.environ["FLOCKER_MAN"]
LINKS = dict(item.split("=") for item in os.environ["FLOCKER_MAN_LINKS"].split())
PAGES = os.environ["FLOCKER_MAN_PAGES"].split()
# Programs, and files that people write, and where they are told of.
OTHERS = ["mount.8", "zfs.8"]  # pages of other programs
FORMATS = ["agent.yml", "cluster.yml", "flocker-application.yml", "flocker-compose.yml", "flocker-deployment.yml"]


def source(page):
    with open(f"{FOLDER}/{page}.scd", encoding="utf-8") as f:
        return f.read()


def page_of(name):
    """The page of that name, in any section, through links."""
    found = [page for page in [*PAGES, *LINKS] if re.fullmatch(re.escape(name) + r"\.\d", page)]
    assert len(found) == 1, f"{name} has {len(found)} man pages: {found}; write man/{name}.N.scd and name it in man/meson.build"
    return LINKS.get(found[0], found[0])


def test_every_program_has_a_page():
    for name in programs.names():
        text = source(page_of(name))
        assert f"*{name}*" in text or f"\n{name} - " in text, f"the page of {name} does not name it"


def test_every_file_format_has_a_page():
    for name in FORMATS:
        source(page_of(name))


def test_every_page_is_installed():
    assert sorted(os.path.basename(path)[:-4] for path in glob.glob(f"{FOLDER}/*.scd")) == sorted(PAGES)
    for link, page in LINKS.items():
        assert page in PAGES, f"{link} leads to {page}, which is no page"


def options_told(text):
    """Long options to which a page gives a paragraph of their own: the lines of the section OPTIONS that begin with one."""
    section = re.search(r"^# OPTIONS\n(.*?)(?=^# |\Z)", text, re.M | re.S)
    lines = [line for line in (section[1] if section else "").splitlines() if line.startswith("*-")]
    return {name for line in lines for name in re.findall(r"\*--([a-z0-9-]+)\*", line)}


def test_pages_tell_every_option():
    for words, text in programs.every_command():
        if words[0] == "flocker" and len(words) > 1:
            continue  # the same programs once more
        page = page_of(words[0])
        common = programs.COMMON if words != ("flocker",) else set()
        for name, (letter, _) in programs.options(text).items():
            forms = [f"--{name}"] + ([f"-{letter}"] if letter else [])
            missing = [form for form in forms if f"*{form}*" not in source(page)]
            # A letter or a long form is enough where a command's usage is told; options have both.
            assert name in common or len(missing) < len(forms), f"{page} does not tell {' '.join(words)} {forms}"
            assert name in common or len(words) > 1 or not missing, f"{page} does not tell {words[0]} {missing}"


def test_pages_tell_no_other_options():
    for page in PAGES:
        known = set()
        for words, text in programs.every_command():
            if page_of(words[0]) == page:
                known |= programs.options(text).keys()
        told = options_told(source(page))
        assert not told - known, f"{page} tells options that no program has: {told - known}"


def test_pages_tell_every_command():
    for name in ("flockerctl", "flocker-ca"):
        text = source(page_of(name))
        for command in programs.commands(programs.help_of(name)):
            assert re.search(rf"^.*\*(?:{name} )?{command}\*", text, re.M), f"{page_of(name)} does not tell the command {command}"


def test_pages_refer_to_pages():
    for page in PAGES:
        for name, section in re.findall(r"\*([a-z.-]+)\*\((\d)\)", source(page)):
            assert f"{name}.{section}" in [*PAGES, *LINKS, *OTHERS], f"{page} refers to {name}({section}), which there is not"


if __name__ == "__main__":
    sys.exit(programs.run_cases([case for name, case in sorted(globals().items()) if name.startswith("test_")]))
