"""Code in colours: comments, strings, numbers, keywords and names that are called, of the languages people paste.

Made here because no highlighter at hand is bounded: a degenerate text of 2,000 characters (blank lines, open quotes)
keeps pygments busy for a second, one of 20,000 for minutes. A pattern below never looks at a character more than a few
times: what is opened and not closed runs to the end instead of being tried again.
"""

import re
from collections.abc import Iterator
from functools import cache

HASH, SLASHES, DASHES, BLOCK = r"\#[^\n]*", r"//[^\n]*", r"--[^\n]*", r"/\*(?:[\s\S]*?\*/|[\s\S]*)"
MARKUP = r"<!--(?:[\s\S]*?-->|[\s\S]*)"
QUOTES = r""" "(?:\\[\s\S]|[^"\\\n])*"? """.strip()
APOSTROPHES = r"'(?:\\[\s\S]|[^'\\\n])*'?"
LETTER = r"'(?:\\.[0-9a-fA-F]{0,4}|[^'\\\n])'"  # languages where an apostrophe means other things, too
BACKTICKS = r"`(?:\\[\s\S]|[^`\\])*`?"
TRIPLE = r'"""(?:[\s\S]*?"""|[\s\S]*)|' + r"'''(?:[\s\S]*?'''|[\s\S]*)"
NUMBER = r"\b(?:0[xXbBoO][0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w*"

PYTHON = """and as assert async await break case class continue def del elif else except False finally for from global if
import in is lambda match None nonlocal not or pass raise return True try while with yield"""
SCRIPT = """as async await break case catch class const continue debugger default delete do else enum export extends false
finally for from function get if implements import in instanceof interface let namespace new null of private protected
public readonly return set static super switch this throw true try type typeof undefined var void while with yield"""
TYPED = """abstract as async auto await base bool boolean break byte case catch char class concept const constexpr continue
crate data default defer delete do double dyn else enum explicit export extends extension extern false final finally float
fn for foreach friend fun func go goto guard if impl implements import in inline int interface internal is let long loop
match mod move mut mutable namespace new nil null nullptr object operator out override package private protected protocol
pub public range readonly ref register return sealed select self Self short signed sizeof static string struct super switch
synchronized template this throw throws trait true try type typedef typename union unsafe unsigned use using val var
virtual void volatile when where while yield"""
SHELL = """case do done elif else esac export fi for function if in local read return select set shift source then trap
unset until while"""
SQL = """add all alter and as asc begin between by case check column commit constraint create cross database default delete
desc distinct drop else end exists false foreign from full group having if in index inner insert into is join key left like
limit not null on or order outer primary references returning right rollback select set table then top transaction true
union unique update using values view when where with"""
RUBY = """alias and begin break case class def defmodule defp do else elsif elseif end ensure false fn for function goto if
in local loop module new next nil not or raise redo repeat require rescue retry return self super then true undef unless
until when while yield"""
R_LANGUAGE = "break else FALSE for function if in library NA next NULL repeat return TRUE while Inf NaN end elseif"
CONSTANTS = "true false null yes no on off none True False None"

# names -> comments, strings, keywords
LANGUAGES: dict[str, tuple[str, str, str]] = {
    "python py python3 sage": (HASH, rf"(?:\b[rbfuRBFU]{{1,2}})?(?:{TRIPLE}|{QUOTES}|{APOSTROPHES})", PYTHON),
    "javascript js jsx typescript ts tsx mjs node": (
        f"{SLASHES}|{BLOCK}",
        f"{QUOTES}|{APOSTROPHES}|{BACKTICKS}",
        SCRIPT,
    ),
    "java c h cpp c++ cc hpp csharp c# cs go golang kotlin kt swift scala rust rs dart objective-c objc php groovy": (
        f"{SLASHES}|{BLOCK}",
        f"{QUOTES}|{LETTER}",
        TYPED,
    ),
    "bash sh shell zsh console powershell ps1 dockerfile docker makefile make": (
        HASH,
        f"{QUOTES}|{APOSTROPHES}",
        SHELL,
    ),
    "sql mysql postgresql postgres sqlite plsql": (f"{DASHES}|{BLOCK}", APOSTROPHES, f"{SQL} {SQL.upper()}"),
    "ruby rb elixir ex perl pl": (HASH, f"{QUOTES}|{APOSTROPHES}", RUBY),
    "lua haskell hs": (DASHES, f"{QUOTES}|{LETTER}", f"{RUBY} case class data deriving instance let of type where"),
    "r julia jl matlab octave": (rf"{HASH}|%[^\n]*", QUOTES, R_LANGUAGE),
    "json jsonc yaml yml toml ini cfg properties": (HASH, f"{QUOTES}|{LETTER}", CONSTANTS),
    "html xml svg vue xhtml": (MARKUP, QUOTES, ""),
    "css scss less": (BLOCK, f"{QUOTES}|{APOSTROPHES}", "important media import from to"),
}
BY_NAME = {name: names for names in LANGUAGES for name in names.split()}


def coloured(code: str, language: str) -> Iterator[tuple[str, str]]:
    """(class, text) of the pieces of the code, in order and complete; one piece without a class for other languages."""
    names = BY_NAME.get(language.lower())
    if names is None:
        yield "", code
        return
    pattern, keywords = _compiled(names)
    at = 0
    for found in pattern.finditer(code):
        kind = found.lastgroup or ""
        if kind == "word":
            after = code[found.end() : found.end() + 1]
            kind = "kw" if found[0] in keywords else "fn" if after == "(" else ""
        if kind:
            if found.start() > at:
                yield "", code[at : found.start()]
            yield kind, found[0]
            at = found.end()
    if at < len(code):
        yield "", code[at:]


@cache
def _compiled(names: str) -> tuple[re.Pattern[str], frozenset[str]]:
    comments, strings, keywords = LANGUAGES[names]
    tags = r"(?P<kw></?[\w:-]+|/?>)|" if comments == MARKUP else r"(?P<fn>@[^\W\d]\w*)|"
    pattern = rf"(?P<com>{comments})|(?P<str>{strings})|{tags}(?P<num>{NUMBER})|(?P<word>[^\W\d]\w*)"
    return re.compile(rf"{pattern}|(?P<op>[-+*/%=<>!&|^~?:]+)"), frozenset(keywords.split())
