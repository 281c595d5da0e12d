"""docs/client.md names the commands and flags that --help names, each in its section, and no others."""
import pathlib
import re
import subprocess
import unittest

import harness

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "client.md"
ALL_COMMANDS = "All commands"


def help_of(command):
    done = subprocess.run([harness.program("gatehouse"), *command.split()[1:], "--help"], capture_output=True, text=True,
                          timeout=harness.HANG_SECONDS, check=True)
    return done.stdout


def flags_in_help(text):
    """Long names; --help itself is everybody's."""
    lines = re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.MULTILINE)
    return set(lines) - {"--help"}


def commands_in_help(text):
    listed = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.MULTILINE)
    return re.findall(r"^  ([\w-]+) ", listed.group(1), re.MULTILINE) if listed else []


def sections():
    """Heading -> text up to the next heading."""
    parts = re.split(r"^#{2,3} (.*)\n", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def flags_in_section(text):
    return re.findall(r"^\| `(--[\w-]+)` \|", text, re.MULTILINE)


def all_commands(command="gatehouse"):
    for name in commands_in_help(help_of(command)):
        if name != "help":
            yield f"{command} {name}"
            yield from all_commands(f"{command} {name}")


class ClientDocsTest(unittest.TestCase):
    def test_every_command_has_its_section_with_its_flags(self):
        documented = sections()
        commands = list(all_commands())
        self.assertGreater(len(commands), 10)
        for command in commands:
            with self.subTest(command=command):
                self.assertIn(command, documented)
                flags = flags_in_section(documented[command])
                self.assertEqual(sorted(flags), sorted(flags_in_help(help_of(command))))
        self.assertEqual({name for name in documented if name.startswith("gatehouse ")}, set(commands))

    def test_the_flags_of_all_commands(self):
        flags = flags_in_section(sections()[ALL_COMMANDS])
        self.assertIn("--target", flags)
        self.assertEqual(sorted(flags), sorted(flags_in_help(help_of("gatehouse"))))

    def test_flags_in_examples_exist(self):
        for line in re.findall(r"^(?:.*\| )?(gatehouse [a-z].*)$", DOCUMENT.read_text(), re.MULTILINE):
            words = re.match(r"gatehouse((?: [a-z][\w-]*)+)", line).group(0).split()
            command = " ".join(words[:3] if words[1] == "admin" else words[:2])
            known = flags_in_help(help_of(command)) | flags_in_help(help_of("gatehouse"))
            with self.subTest(line=line):
                self.assertLessEqual(set(re.findall(r"(?<!\S)--[\w-]+", line.split(" | ")[0])), known)

    def test_environment_variables_are_named(self):
        variables = re.findall(r"^  (GATEHOUSE_\w+) ", help_of("gatehouse"), re.MULTILINE)
        self.assertGreater(len(variables), 2)
        for variable in variables:
            self.assertIn(f"| `{variable}` |", DOCUMENT.read_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
