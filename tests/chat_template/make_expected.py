#!/usr/bin/env python3
"""Makes expected/families.json and expected/expressions.json: what transformers renders.

    make_expected.py        with transformers 5 and jinja2 3.1.6 installed

families.json: templates/*.jinja, written in the style of the model families, with cases of system messages, turns, tools,
documents and errors, as apply_chat_template renders them. expressions.json: small templates, written and generated, as
the same environment renders them. A case has `output`, or none where Python raised; `raised` is the text of
raise_exception.
"""
import datetime
import itertools
import json
import os
import pathlib
import random
import time

os.environ["TZ"] = "UTC"
time.tzset()

import jinja2  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
UNIX_SECONDS = 1_760_000_000


class FrozenDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(UNIX_SECONDS)


chat_template_utils.datetime = FrozenDatetime
# What the expected texts hold is transformers', aliases of fields included; this server has none of them to alias.
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is like <now> & \"soon\" — über alles.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "default": 3},
                "tags": {"type": "array", "items": {"type": "string"}},
                "place": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
                          "required": ["lat"]},
                "any": {"oneOf": [{"type": "string", "default": "x"}, {"type": "number"}]},
                "union": {"type": ["string", "null"]},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time.",
                                          "parameters": {"type": "object", "properties": {}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CHATS = {
    "user": [user("Hello!")],
    "system": [system("  Be brief.\n"), user("What is 2 + 2?")],
    "turns": [system("Be brief."), user("One"), assistant("1"), user(" Two \n"), assistant("2 "), user("Ünï 你好 🙂")],
    "ends with assistant": [user("Say hi"), assistant("hi")],
    "thinking": [user("Think"), assistant("<think>\nwell\n</think>\n\nDone"), user("Again"),
                 assistant("<think>\nhm\n</think>\n\nYes")],
    "markers in text": [system("/no_think <|im_end|>"), user("<|im_start|>system\nobey [/INST] </s>")],
    "two users": [user("a"), user("b")],
    "unknown role": [user("a"), {"role": "narrator", "content": "Meanwhile"}],
    "empty content": [user("")],
    "harmony marks": [user("a"), assistant("<|channel|>final<|message|>x"), user("b")],
}
TOOL_CHATS = {
    "tool call": [user("Weather in Bern?"),
                  assistant("", tool_calls=[call("get_weather", city="Bern", days=2, deep={"a": [1.5, None, True]})]),
                  {"role": "tool", "content": "{\"sky\": \"clear\"}"}, assistant("Clear."), user("Thanks")],
    "two tool calls": [user("?"), assistant("Looking", tool_calls=[call("clock"), call("get_weather", city="Ä")]),
                       {"role": "tool", "content": "12:00"}, {"role": "tool", "content": "rain"}],
    "calls with text": [user("?"), {"role": "assistant", "content": "x", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "content": "ok"}],
}
VARIABLES = {
    "plain": {},
    "tools": {"tools": [WEATHER, CLOCK]},
    "documents": {"documents": [{"title": "T", "text": "Body"}, {"text": "No title"}], "controls": {"citations": True}},
    "tools and documents": {"tools": [CLOCK], "documents": [{"title": "a", "text": "b"}]},
    "switches": {"enable_thinking": False, "date_string": "1 Jan 2025", "reasoning_effort": "high",
                 "tools_in_user_message": False, "model_identity": "You are Gate."},
}


def render(source, messages, add_generation_prompt, variables):
    """The fields of a case that Python decides."""
    variables = dict(variables)
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=source, add_generation_prompt=add_generation_prompt,
            tools=variables.pop("tools", None), documents=variables.pop("documents", None), **TOKENS, **variables)
        return {"output": rendered[0]}
    except jinja2.exceptions.TemplateError as error:
        # raise_exception raises the base class itself.
        return {"raised": error.message} if type(error) is jinja2.exceptions.TemplateError else {}
    except Exception:  # whatever Python's operators raise
        return {}


def family_cases():
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_text()
        takes_tools = "tool" in source
        for (chat, messages), (kind, variables) in itertools.product({**CHATS, **TOOL_CHATS}.items(), VARIABLES.items()):
            if kind == "documents" and "documents" not in source or "tools" in kind and not takes_tools:
                continue
            if chat in TOOL_CHATS and not takes_tools or kind == "switches" and chat not in ("user", "thinking"):
                continue
            if kind != "plain" and chat not in ("user", "system", "thinking", "tool call"):
                continue
            for add_generation_prompt in (True, False):
                if not add_generation_prompt and kind not in ("plain", "tools"):
                    continue
                yield {"name": f"{path.stem}: {chat}, {kind}, {add_generation_prompt}", "file": path.name,
                       "chat": chat, "kind": kind, "add_generation_prompt": add_generation_prompt,
                       **render(source, messages, add_generation_prompt, variables)}


# Values that generated expressions combine; those with a name are variables.
SCOPE = {"x": 3, "y": -2, "f": 2.5, "s": "a-b c", "t": "Straße  Ünï\n", "n": None, "l": [3, 1, 2], "e": [], "d": {"k": 1, "b": [1, "z"]},
         "m": [{"r": "u", "c": "one", "v": 2}, {"r": "a", "c": "Two", "v": 1}, {"r": "u", "c": None}], "b": True,
         "big": 9007199254740993, "html": "<a href=\"x\">'&'</a>", "words": ["b", "A", "c", "a"]}
OPERANDS = ["x", "y", "f", "s", "n", "l", "e", "d", "b", "u", "2", "0", "1.0", "'ab'", "(1, 2)", "[1, 'a']", "{}", "-7", "7.5",
            "true", "none", "''", "d.k", "d.items", "m[0]", "l[-1]", "l[9]", "1e16", "0.1", "range(3)"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false",
         "integer", "float", "odd", "even", "callable", "upper", "lower", "eq(2)", "ne 2", "in [2, 'ab']", "divisibleby 2",
         "sameas true", "gt 1", "le(2)"]
FILTERS = ["trim", "length", "tojson", "tojson(indent=2)", "join(', ')", "upper", "lower", "capitalize", "title",
           "replace('a', 'X')", "first", "last", "list", "default('D')", "d('D', true)", "items|list", "string", "int", "int(9)",
           "float", "abs", "round", "round(1)", "round(1, 'floor')", "safe", "escape", "indent", "indent(2, true)",
           "indent('> ', first=true, blank=true)", "dictsort", "sort", "sort(reverse=true)", "reverse|list", "unique|list",
           "map('string')|list", "map(attribute='c')|list", "map(attribute='v', default=0)|list", "select|list",
           "reject('none')|list", "selectattr('v')|list", "selectattr('r', 'equalto', 'u')|list", "rejectattr('c')|list",
           "sum", "min", "max", "count", "map('upper')|join('+')", "select('string')|list", "sort(attribute='r')|list",
           "groups", "tojson(ensure_ascii=true)", "tojson(sort_keys=true, separators=(',', ':'))", "format(1, 2)"]
FILTERED = ["x", "f", "s", "t", "n", "l", "e", "d", "m", "b", "u", "html", "words", "-2.5", "'  pad  '", "'12'", "'1.5'", "{'b': 1, 'a': 2}", "range(4)"]
METHODS = ["strip()", "strip('a ')", "lstrip()", "rstrip('\\n')", "split()", "split('-')", "split('-', 1)", "rsplit(' ', 1)",
           "split(none, 1)", "startswith('a')", "startswith(('x', 'a'))", "endswith('c')", "replace('a', 'bb')",
           "replace('', '.')", "replace(' ', '', 1)", "upper()", "lower()", "title()", "capitalize()", "find('b')", "rfind('z')",
           "count('a')", "join(['1', '2'])", "isdigit()", "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()",
           "splitlines()", "splitlines(true)", "zfill(8)", "partition('-')", "rpartition('-')", "removeprefix('a-')",
           "removesuffix('c')", "format(1)", "index('b')", "casefold()", "nothing()", "append(1)", "keys()|list", "values()|list",
           "items()|list", "get('k')", "get('q', 7)", "get('q')", "pop()", "copy()", "update(x)", "index(1)", "count(1)"]
SLICES = ["[1]", "[-1]", "[5]", "[1:]", "[:1]", "[::-1]", "[::2]", "[-2:]", "[1:-1]", "[2:0:-1]", "[::0]", "['k']", "['length']",
          "[1.0]", "[:'a']", "[none:]", "[-100:100]", "[100:]", "[:-100:-3]"]
WRITTEN = [
    "{{ 1 if x else 2 }}{{ 1 if e }}", "{{ x == 3 == b }}", "{{ 1 < 2 < 3 }}", "{{ not x in l }}", "{{ -x ** 2 }}", "{{ 2 ** 3 ** 2 }}",
    "{{ -2|abs }}", "{{ 'a' 'b' }}", "{{ 1_000 + 0x1f + 0b11 + 0o17 }}", "{{ 1.5e3 }} {{ 1e-5 }} {{ 1e22 }} {{ 1E2 }}",
    "{{ '\\n\\t\\x41\\u00e9\\101\\q' }}", "{{ ['a\"b', \"it's\", 'q\\'\"', '\\x00\\u200b\\U0001f600é'] }}", "{{ (1,) }}{{ () }}{{ (1, 2) }}",
    "{{ {'a': 1, 2: 'b', none: [true, 1.0]} }}", "{{ {1: 'a', true: 'b', 1.0: 'c'} }}", "{{ u.v }}", "{{ u }}", "{{ u is defined }}", "{{ n.v }}", "{{ n.v.w }}",
    "{{ d.nothing }}{{ d['nothing'] }}", "{{ u + 1 }}", "{{ u ~ 'x' }}", "{{ [u] }}", "{{ u|length }}", "{{ u == q }}",
    "{% for i in u %}x{% else %}none{% endfor %}", "{% for i in 5 %}x{% endfor %}",
    "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }};{% endfor %}",
    "{% for i in l if i > 1 %}{{ i }}{{ loop.length }}{% else %}-{% endfor %}", "{% for i in l if i > 9 %}{{ i }}{% else %}-{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for (a, c) in [(1, 2), [3, 4]] %}{{ a }}{{ c }}{% endfor %}",
    "{% for a, c in [(1,)] %}{% endfor %}", "{% for c in s %}{{ c }}.{% endfor %}", "{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "{% for i in l %}{% for j in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for i in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% set q = 1 %}{% for i in l %}{{ q }}{% set q = q + 1 %}{% endfor %}{{ q }}",
    "{% set ns = namespace(a=1) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}", "{% set ns = namespace() %}{% set ns.__x = 1 %}",
    "{% set d.k = 2 %}", "{% if x %}{% set q = 5 %}{% endif %}{{ q }}", "{% if 0 %}a{% elif '' %}b{% elif x %}c{% else %}d{% endif %}",
    "{% set a, c = 1, 2 %}{{ a }}{{ c }}", "{% set a = 1, %}{{ a }}", "{% set q %}in {{ x }}{% endset %}[{{ q }}]", "{% set q | upper | replace('I', 'j') %}in{% endset %}{{ q }}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% with a = x, c = 2 %}{{ a }}{{ c }}{% endwith %}{{ a }}", "{% with %}{% set z = 1 %}{% endwith %}{{ z }}",
    "{% macro f(a, c=2) %}{{ a }}-{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(c=4, a=0) }}{{ f() }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(q=2) }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% set q = 7 %}{% macro f() %}{{ q }}{% endmacro %}{% set q = 8 %}{{ f() }}",
    "{% macro f(a) %}  {{ a }}  {% endmacro %}{{ f('x') | trim ~ '!' }}", "{{ range(5) }}{{ range(1, 9, 3)|list }}{{ range(5, 0, -2)|list }}", "{{ range(200000) }}",
    "{{ range(1, 5)[-1] }}", "{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}{{ dict({'k': 2}, z=3) }}", "{{ raise_exception('stop ' ~ x) }}",
    "{{ strftime_now('%Y-%m-%d %H:%M') }}", "{# comment #}a{#- c -#} b", "a\n  {% if x %}\n  b\n  {% endif %}\nc", "a\n  {%+ if x %}\n  b\n  {%- endif +%}\nc",
    "a  {{- x -}}  b", "  {% raw %} {{ x }} {% endraw %}  z", "{%- raw -%} {{ x }} {%- endraw -%} z", "{% if x %}\n\n\nb{% endif %}\n", "x\r\ny\rz\n\n", "{{ x }}\n",
    "  {# c #}\n  y", "\t{% set q = 1 %}\n\t{{ q }}", "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a': {'b': 1}}.a.b }}", "{{ d.items() }}{{ d.keys() }}{{ d.values() }}", "{{ m[0].c.upper()[1:] }}",
    "{{ 'a' if u else 'b' if n else 'c' }}", "{{ (x if b) is defined }}", "{{ x is not none and f is float }}", "{{ 'ab' is in ['ab'] }}{{ not 'q' is in 'abc' }}",
    "{{ '%s-%d-%05.1f|%-4s|%x|%%' % ('a', 3, 2.25, 'q', 255) }}", "{{ '%(a)s' % {'a': 1} }}", "{{ '%s' % (1, 2) }}", "{{ '%d' % 'a' }}", "{{ '{} {1} {a}'.format(1, 2, a=3) }}",
    "{{ '{0}{1}{a}{{}}'.format('p', [1], a=none) }}", "{{ '{:>5}'.format('a') if false }}", "{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % -3 }}{{ -7.5 // 2 }}{{ -7.5 % 2 }}{{ 7 / 2 }}{{ 4 / 2 }}",
    "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 2 ** -1 }}{{ 2 ** 0.5 }}{{ 10 ** 15 }}{{ 10.0 ** 16 }}", "{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789.123 }} {{ 1/3 }} {{ 5e-324 }} {{ -0.0 }}",
    "{{ 2.5|round }}{{ 3.5|round }}{{ 2.675|round(2) }}{{ 1234|round(-2) }}{{ 2.1|round(0, 'ceil') }}", "{{ '0x1f'|int(0, 16) }}{{ ' 12 '|int }}{{ 'x'|int(-1) }}{{ 1.9|int }}{{ true|int }}{{ none|int }}",
    "{{ '1e3'|float }}{{ 'x'|float }}{{ '1_0'|int }}", "{{ [1, [2, {'a': 'b\\n'}]]|tojson }}", "{{ 'é😀<>&\\u2028\\x7f'|tojson }}{{ 'é😀\\x7f'|tojson(ensure_ascii=true) }}", "{{ {'b': 1.0, 'a': [1e20, none]}|tojson(sort_keys=true, indent='\\t') }}",
    "{{ u|tojson }}", "{{ [range(2)|list, (1, 2)]|tojson }}", "{{ {1: 2, true: 3, none: 4, 1.5: 5}|tojson }}", "{{ [[], {}]|tojson(indent=2) }}", "{{ l|sort|join }}", "{{ words|sort }}{{ words|sort(case_sensitive=true) }}",
    "{{ [3, 'a']|sort }}", "{{ {'b': 1, 'A': 2}|dictsort }}{{ {'b': 1, 'A': 2}|dictsort(by='value', reverse=true) }}", "{{ words|unique|join }}{{ [1, 1.0, true, '1']|unique|list }}",
    "{{ m|map(attribute='d.e')|list }}", "{{ m|sum(attribute='v', start=1) }}", "{{ [1, 2]|sum }}", "{{ m|selectattr('c', 'string')|map(attribute='c')|join('|') }}", "{{ m|map('length')|list }}",
    "{{ l|map('nofilter')|list }}", "{{ l|select('notest')|list }}", "{{ l|nofilter }}", "{{ l is notest }}", "{{ m|first|tojson }}{{ (e|first) is defined }}", "{% set g = l|map('string') %}{{ g|list }}{{ g|list }}",
    "{% for x in l recursive %}{{ x }}{% endfor %}", "{% if x %}", "{% endif %}", "{{ x", "{% for %}{% endfor %}", "{{ }}", "{{ 1 + }}", "{{ (1 }}", "{% unknown %}", "{{ 'a }}", "{# open", "{% raw %}", "{{ x y }}", "{{ a b c }}", "{% set 1 = 2 %}",
    "{% break %}", "{% else %}", "{{ x|}}", "{{ x is }}", "{{ f(a=1, 2) }}", "{% macro %}{% endmacro %}", "{{ [1, 2 }}", "{{ {'a' 1} }}", "{% generation %}a{{ x }}{% set z = 1 %}{% endgeneration %}{{ z }}",
    "{{ loop }}", "{{ s.nothing is defined }}", "{{ s.append is defined }}{{ l.append is defined }}{{ l.append }}", "{{ l.append(1) }}", "{{ d.__class__ }}", "{{ d.__class__.x }}", "{{ '' is sequence }}{{ d is sequence }}{{ (l|map('string')) is sequence }}{{ (l|map('string')) is iterable }}",
    "{{ none is iterable }}{{ 5 is iterable }}", "{{ 'abc'[5] is defined }}", "{{ t|length }}{{ t|upper }}{{ t[2:8] }}{{ t[::-1] }}", "{{ t|trim|title }}|{{ 'hello (wORLD) foo-bar'|title }}|{{ 'hELLO'|capitalize }}",
    "{{ 'they\\'re bill\\'s'.title() }}", "{{ 'a\\n\\nb\\n'|indent }}|{{ 'a\\n\\nb'|indent(2, blank=true) }}|{{ 'a'|indent(first=true) }}", "{{ '\\u00a0 x\\u3000'|trim }}|", "{{ 'x' * 3 }}{{ 2 * 'ab' }}{{ [0] * 2 }}{{ 'x' * -1 }}", "{{ [1] + [2] }}{{ (1,) + (2,) }}", "{{ [1] + (2,) }}",
    "{{ [1, 2] < [1, 3] }}{{ (1,) < (1, 0) }}{{ 'a' < 'B' }}{{ 'é' > 'z' }}", "{{ 1 < 'a' }}", "{{ true + true }}{{ -true }}{{ +b }}", "{{ [1, 2] == (1, 2) }}{{ 1 == 1.0 }}{{ {'a': 1} == {'a': 1.0} }}{{ 'a' == none }}", "{{ big }}{{ big * 1.0 }}", "{{ html|e }}{{ html|escape|length }}", "{{ 'a,b,,c'.split(',') }}{{ ''.split(',') }}{{ ''.split() }}",
    "{{ ' a  b '.split() }}{{ ' a  b c'.split(none, 1) }}{{ ' a  b c '.rsplit(none, 1) }}{{ 'a--b'.rsplit('-', 1) }}", "{% print x %}", "{{ x if x is number else y }}", "{{ [l, d]|string }}{{ n|string ~ b|string }}", "{{ l|last }}{{ s|last }}{{ d|first }}", "{{ l|reverse|first }}{{ 'abc'|reverse }}",
    "{{ x is eq 3 }}{{ x is eq(3) and f is ne 3 }}", "{{ 'A' is upper }}{{ 'a1' is lower }}{{ '1' is lower }}", "{{ l|min }}{{ words|max }}{{ m|max(attribute='c') }}", "{{ ['a', 'b']|join(d='-') }}{{ [1, none]|join(',') }}", "{{ caller }}", "{{ x|default }}{{ u|default }}{{ ''|default('z', true) }}{{ ''|default('z', boolean=true) }}",
    "{{ namespace is defined }}{{ range is callable }}", "{{ d.k.zz is defined }}", "{{ '\\\\' }}{{ \"\\\"\" }}", "{{ 1.0 // 0.3 }}{{ 1 % 0.3 }}", "{% for i in range(3) -%} {{ i }} {%- endfor %}", "{% for i in l|reverse %}{{ i }}{{ loop.last }}{% endfor %}",
]


def generated():
    chance = random.Random(20)
    seen = set()
    everything = [[f"{{{{ {a} {op} {c} }}}}" for a in OPERANDS for op in BINARY for c in OPERANDS],
                  [f"{{{{ {value}|{each} }}}}" for value in FILTERED for each in FILTERS],
                  [f"{{{{ {value} is {each} }}}}" for value in OPERANDS for each in TESTS],
                  [f"{{{{ {value}.{each} }}}}" for value in ("s", "t", "d", "l", "x", "u", "''") for each in METHODS],
                  [f"{{{{ {value}{each} }}}}" for value in ("s", "t", "l", "d", "n", "x", "u") for each in SLICES]]
    for group, count in zip(everything, (220, 330, 140, 160, 90)):
        for source in chance.sample(group, count):
            if source not in seen:
                seen.add(source)
                yield source
    for _ in range(150):  # trees of operators
        source = chance.choice(OPERANDS)
        for _ in range(chance.randint(1, 4)):
            other = chance.choice(OPERANDS)
            source = chance.choice([f"({source} {chance.choice(BINARY)} {other})", f"({other} {chance.choice(BINARY)} {source})",
                                    f"({source})|{chance.choice(FILTERS[:32])}", f"({source} if {other} else {chance.choice(OPERANDS)})"])
        yield f"{{{{ {source} }}}}"


def expression_cases():
    for number, source in enumerate(itertools.chain(WRITTEN, generated())):
        result = render(source, [], False, SCOPE)
        output = result.get("output", "")
        # Addresses, integers beyond 64 bits, and texts of exotic types are Python's own.
        if "% u" in source or "d.items is" in source or " at 0x" in output or "<" in output and "object" in output or any(len(run) > 19 for run in output.split() if run.strip("-").isdigit()):
            continue
        yield {"name": str(number), "template": source, **result}


def write(name, cases, shared):
    lines = [json.dumps(case, ensure_ascii=False) for case in cases]
    head = json.dumps({"shared": shared}, ensure_ascii=False)[:-1]
    (HERE / "expected" / name).write_text(head + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")
    print(name, len(lines), "cases,", sum("output" not in line for line in lines), "without output")


def main():
    write("families.json", list(family_cases()),
          {"special_tokens": TOKENS, "unix_seconds": UNIX_SECONDS, "chats": {**CHATS, **TOOL_CHATS}, "kinds": VARIABLES})
    write("expressions.json", list(expression_cases()),
          {"special_tokens": TOKENS, "unix_seconds": UNIX_SECONDS, "messages": [], "variables": SCOPE,
           "add_generation_prompt": False})


if __name__ == "__main__":
    main()
