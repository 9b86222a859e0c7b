//! How the page looks: light and dark, narrow and wide, on paper. Contrast keeps WCAG 2.2 AA.

use base64::Engine as _;
use portcullis_model::Digest;

use super::svg;

/// The page's only style element.
pub(super) fn sheet() -> String {
    format!("{}\n{PAGE}", svg::STYLE)
}

/// The page's policy: nothing is loaded, nothing runs, no style but the one sheet holds.
pub(super) fn policy(sheet: &str) -> String {
    let digest = Digest::of(sheet.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(digest.as_bytes());
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

const PAGE: &str = ":root{--back:#f4f6f9;--rule:#dde2ea;--blue:#0b57a4;--badge-red:#b71c1c;--badge-amber:#8a5000;--badge-green:#256b2a;--badge-gray:#4f5a6c;--add:#e6f4ea;--gone:#fdecea}
@media (prefers-color-scheme:dark){:root{--back:#0e1219;--rule:#2b3342;--blue:#8ab8ff;--add:#14301d;--gone:#3a1a19}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif;overflow-wrap:anywhere}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.75rem;line-height:1.25;margin:0 0 8px}
h2{font-size:1.3rem;margin:40px 0 10px}
h3{font-size:1.02rem;margin:0;display:inline}
a{color:var(--blue)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--blue);outline-offset:2px;border-radius:4px}
.skip{position:absolute;left:-999px}
.skip:focus{left:12px;top:12px;background:var(--paper);padding:8px 12px;z-index:1}
.quiet{color:var(--soft)}
nav ul{list-style:none;padding:0;margin:16px 0 0;display:flex;flex-wrap:wrap;gap:6px 18px}
.card,figure{background:var(--paper);border:1px solid var(--rule);border-radius:10px;padding:14px 18px;margin:12px 0}
figure{padding:8px}
.scroll{overflow:auto;max-height:85vh}.card.scroll{max-height:34rem}
@media (min-width:1100px){svg.fit{max-width:100%;height:auto}}
@media (min-width:1240px){figure{width:fit-content;min-width:100%;max-width:96vw;margin-left:50%;transform:translateX(-50%)}}
figcaption{padding:6px 10px;color:var(--soft);font-size:.9rem}
.badge{display:inline-block;border-radius:5px;padding:0 9px;font-weight:600;font-size:.88rem;line-height:1.65;color:#fff;background:var(--badge-gray);white-space:nowrap}
.badge.reachable,.badge.error{background:var(--badge-red)}.badge.depends,.badge.warning{background:var(--badge-amber)}.badge.cut{background:var(--badge-green)}
.way{border-left:5px solid var(--line)}.way.reachable{border-left-color:var(--red)}.way.depends{border-left-color:var(--amber)}.way.cut{border-left-color:var(--green)}
.way:target{outline:3px solid var(--blue);outline-offset:2px}
.lazy{content-visibility:auto;contain-intrinsic-size:auto 90px}
summary{cursor:pointer}
details+details{margin-top:8px}
details>summary{padding:2px 0}
ol.path{list-style:none;margin:12px 0 4px;padding:0;counter-reset:step}
ol.path>li{counter-increment:step;position:relative;padding:0 0 14px 38px;border-left:2px solid var(--rule);margin-left:13px}
ol.path>li:last-child{border-left-color:transparent;padding-bottom:2px}
ol.path>li::before{content:counter(step);position:absolute;left:-14px;top:0;width:26px;height:26px;border-radius:50%;background:var(--paper);border:2px solid var(--line);text-align:center;font-size:.8rem;line-height:22px}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:.86rem}
pre{background:var(--back);border-radius:6px;padding:9px 11px;margin:6px 0 0;white-space:pre-wrap}
pre ins,pre del{text-decoration:none;display:block}pre ins{background:var(--add)}pre del{background:var(--gone)}
.place{color:var(--soft)}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:7px 10px 7px 0;border-bottom:1px solid var(--rule)}
tbody th{font-weight:400}
ul.plain{list-style:none;padding:0;margin:0}
ul.plain>li{padding:9px 0;border-bottom:1px solid var(--rule)}ul.plain>li:last-child{border-bottom:0}
meter{width:110px;max-width:30vw}
footer{padding-top:24px;padding-bottom:40px;color:var(--soft);font-size:.9rem}
@media (max-width:640px){body{font-size:15px}header,main,footer{padding-left:12px;padding-right:12px}.card{padding:12px}h1{font-size:1.4rem}th,td{padding-right:6px}}
@media print{body{background:#fff}.scroll{max-height:none;overflow:visible}.lazy{content-visibility:visible}nav,.skip{display:none}}";
