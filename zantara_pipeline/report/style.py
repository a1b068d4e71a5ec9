"""The style sheet of the page, inlined into it.

Belongs here: colours (light and dark) and layout. Does not belong here: markup. `plots.py` draws in these variables.
"""

CSS = """\
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2330; --muted: #5c6675; --line: #dfe3e9;
  --accepted: #3f7fc1; --duplicates: #a9c9ea; --quarantined: #e08a2c; --suppressed: #9a8fb8; --unparsable: #c2404d;
  --model: #2563a8; --baseline: #8a94a3; --good: #1f8552; --bad: #c2323f; --neutral: #76808e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2029; --ink: #e6e9ee; --muted: #9aa5b4; --line: #313a47;
    --accepted: #5c9ee0; --duplicates: #345d88; --quarantined: #e79b4a; --suppressed: #8b80ab; --unparsable: #e0626e;
    --model: #6aa9ea; --baseline: #8792a2; --good: #4fbd87; --bad: #f0717c; --neutral: #929cab;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .15rem; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; overflow-wrap: anywhere; }
p { margin: .3rem 0 .7rem; max-width: 100ch; }
.sub, figcaption, .note { color: var(--muted); font-size: .88rem; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.1rem; margin-top: 1rem;
}
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .6rem; margin: .6rem 0 1rem;
}
.tile { border-left: 4px solid var(--line); padding: .1rem 0 .1rem .6rem; }
.tile b { display: block; font-size: 1.25rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .82rem; }
figure { margin: .4rem 0; }
figure svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, sans-serif; }
.narrow { display: none; max-width: 520px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.w { min-width: 14rem; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
.good { color: var(--good); } .bad { color: var(--bad); } .neutral { color: var(--neutral); }
.mark { font-weight: 600; white-space: nowrap; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .35em; }
details { margin-top: .6rem; } summary { cursor: pointer; color: var(--muted); font-size: .88rem; }
code { font: .9em ui-monospace, monospace; }
td:first-child code { white-space: nowrap; }
@media (max-width: 720px) {
  main { padding: 1rem .6rem 2rem; }
  section { padding: .8rem .8rem; }
  .wide { display: none; } .narrow { display: block; }
}
@media print { body { background: none; } section { break-inside: avoid; } }
"""
