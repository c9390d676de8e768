//! A report as one HTML page without scripts, and without other files where its pictures are embedded.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A section of the page.
#[derive(Debug, Clone)]
pub enum Section {
    /// A table with a head row.
    Table {
        /// Heading.
        title: String,
        /// Names of the columns.
        head: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
    /// A table whose rows lead to other pages.
    Links {
        /// Heading.
        title: String,
        /// Names of the columns.
        head: Vec<String>,
        /// The rows; where there is a path, relative to the page, the first cell leads to it.
        rows: Vec<(Option<String>, Vec<String>)>,
    },
    /// Fractions of 1 as bars on an axis from 0 to 1, with one bar marked and a line at that of chance, 1 / number of bars.
    Bars {
        /// Heading.
        title: String,
        /// The bars.
        bars: Vec<Bar>,
        /// The index of the bar that is marked.
        chosen: usize,
    },
    /// Pictures, by paths relative to the page.
    Pictures {
        /// Heading.
        title: String,
        /// The pictures, each a path and a caption.
        pictures: Vec<(String, String)>,
        /// Whether each picture is on a line of its own, as wide as the page.
        wide: bool,
    },
}

/// A bar of [`Section::Bars`].
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What it is the share of.
    pub name: String,
    /// The share, 0 to 1.
    pub share: f32,
    /// The smallest and the largest of the shares that it is the mean of.
    pub range: [f32; 2],
}

/// A report page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Heading.
    pub title: String,
    /// What the page says in short, a line each.
    pub summary: Vec<String>,
    /// Notes at the top of the page that a reader must know, such as warnings.
    pub notes: Vec<String>,
    /// The sections, in order.
    pub sections: Vec<Section>,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--paper)}\
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--soft:#555;--line:#ddd;--note:#fff4d6}\
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#16181b;--soft:#aaa;--line:#3a3d42;--note:#3a3115}a{color:#8ab4f8}}\
.summary{font-size:1.15rem;margin:.25rem 0}.wide-table{overflow-x:auto}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}table{border-collapse:collapse}\
th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--line)}td{font-variant-numeric:tabular-nums}\
.note{background:var(--note);border-left:4px solid #e0a800;padding:.5rem 1rem;margin:.5rem 0}\
.scale{position:relative;width:20rem;max-width:45vw;height:1rem;border:1px solid var(--line);padding:0}.scale i{position:absolute;top:0;bottom:0;border-left:1px dashed var(--ink)}\
.bar{background:#9db4c8;height:1rem;display:block}.chosen{background:#c0392b}\
figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top}img{max-width:28rem;width:100%;display:block}figure.wide{display:block}.wide img{max-width:100%}\
figcaption{font-size:.9rem;color:var(--soft)}\
@media print{body{max-width:none;margin:0;font-size:11pt}h2{break-after:avoid}figure,tr{break-inside:avoid}thead{display:table-header-group}\
:root{--ink:#000;--paper:#fff}.bar,.note{print-color-adjust:exact}}";

impl Page {
    /// The page as HTML. `picture` gives the PNG file of a picture, which is then part of the page; without it the page refers to its path.
    pub fn html(&self, picture: &dyn Fn(&str) -> Option<Vec<u8>>) -> String {
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head>\n<body>\n<h1>{0}</h1>\n",
            escape(&self.title)
        );
        for line in &self.summary {
            push(&mut out, format_args!("<p class=\"summary\">{}</p>\n", escape(line)));
        }
        for note in &self.notes {
            push(&mut out, format_args!("<p class=\"note\">{}</p>\n", escape(note)));
        }
        for section in &self.sections {
            section.html(&mut out, picture);
        }
        out.push_str("</body></html>\n");
        out
    }
}

impl Section {
    fn html(&self, out: &mut String, picture: &dyn Fn(&str) -> Option<Vec<u8>>) {
        match self {
            Self::Table { title, head, rows } => {
                begin_table(out, title, head);
                rows.iter().for_each(|r| row(out, "td", r));
                out.push_str("</tbody></table></div>\n");
            }
            Self::Links { title, head, rows } => {
                begin_table(out, title, head);
                for (target, cells) in rows {
                    out.push_str("<tr>");
                    for (i, cell) in cells.iter().enumerate() {
                        match target.as_ref().filter(|_| i == 0) {
                            Some(target) => {
                                let target = escape(&encoded(target));
                                push(out, format_args!("<td><a href=\"{target}\">{}</a></td>", escape(cell)));
                            }
                            None => push(out, format_args!("<td>{}</td>", escape(cell))),
                        }
                    }
                    out.push_str("</tr>\n");
                }
                out.push_str("</tbody></table></div>\n");
            }
            Self::Bars { title, bars, chosen } => {
                push(out, format_args!("<h2>{}</h2>\n<table>", escape(title)));
                let chance = 100.0 / bars.len().max(1) as f32;
                for (i, Bar { name, share, range: [low, high] }) in bars.iter().enumerate() {
                    let class = if i == *chosen { "bar chosen" } else { "bar" };
                    let width = 100.0 * share.clamp(0.0, 1.0);
                    let name = escape(name);
                    push(
                        out,
                        format_args!(
                            "<tr><td>{name}</td><td class=\"scale\"><span class=\"{class}\" style=\"width:{width:.1}%\"></span>\
                             <i style=\"left:{chance:.1}%\" title=\"chance\"></i></td><td>&nbsp;{share:.3} ({low:.3} to {high:.3})</td></tr>\n"
                        ),
                    );
                }
                out.push_str("</table>\n");
            }
            Self::Pictures { title, pictures, wide } => {
                let class = if *wide { " class=\"wide\"" } else { "" };
                push(out, format_args!("<h2>{}</h2>\n", escape(title)));
                for (path, caption) in pictures {
                    let source = picture(path)
                        .map_or_else(|| escape(path), |png| format!("data:image/png;base64,{}", BASE64.encode(png)));
                    let caption = escape(caption);
                    push(
                        out,
                        format_args!(
                            "<figure{class}><img src=\"{source}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>\n"
                        ),
                    );
                }
            }
        }
    }
}

/// A heading and a table up to its rows.
fn begin_table(out: &mut String, title: &str, head: &[String]) {
    push(out, format_args!("<h2>{}</h2>\n<div class=\"wide-table\"><table><thead>", escape(title)));
    row(out, "th", head);
    out.push_str("</thead><tbody>\n");
}

fn row(out: &mut String, tag: &str, cells: &[String]) {
    out.push_str("<tr>");
    for cell in cells {
        push(out, format_args!("<{tag}>{}</{tag}>", escape(cell)));
    }
    out.push_str("</tr>\n");
}

/// Appends formatted text; writing to a `String` cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// A path as a relative reference: what has a meaning of its own in an address is given by its code.
fn encoded(path: &str) -> String {
    let mut out = String::from("./");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => out.push(byte.into()),
            _ => push(&mut out, format_args!("%{byte:02X}")),
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let page = Page {
            title: "a<b & \"c\"".into(),
            summary: vec!["<b>".into()],
            notes: vec!["<script>".into()],
            sections: vec![],
        };
        let html = page.html(&|_| None);
        assert!(
            html.contains("a&lt;b &amp; &quot;c&quot;") && !html.contains("<script>") && !html.contains("<b>"),
            "{html}"
        );
        let row = (Some("javascript:a\"b #1/r.html".into()), vec!["<i>".into(), "2".into()]);
        let links = Section::Links { title: String::new(), head: vec![], rows: vec![row] };
        let html = Page { sections: vec![links], ..Page::default() }.html(&|_| None);
        assert!(html.contains("href=\"./javascript%3Aa%22b%20%231/r.html\">&lt;i&gt;</a></td><td>2</td>"), "{html}");
    }

    #[test]
    fn pictures_are_part_of_the_page_where_they_are_given() {
        let pictures = vec![("a.png".into(), "one".into()), ("b.png".into(), "two".into())];
        let section = Section::Pictures { title: "Pictures".into(), pictures, wide: false };
        let html = Page { sections: vec![section], ..Page::default() }
            .html(&|path| (path == "a.png").then(|| b"PNG".to_vec()));
        assert!(html.contains("src=\"data:image/png;base64,UE5H\"") && html.contains("src=\"b.png\""), "{html}");
    }

    #[test]
    fn bars_have_the_axis_of_a_probability() {
        let bar = |name: &str, share: f32| Bar { name: name.into(), share, range: [share - 0.01, share + 0.01] };
        let section = Section::Bars { title: "t".into(), bars: vec![bar("a", 0.75), bar("b", 0.25)], chosen: 0 };
        let html = Page { sections: vec![section], ..Page::default() }.html(&|_| None);
        for part in
            ["bar chosen\" style=\"width:75.0%", "bar\" style=\"width:25.0%", "left:50.0%", "0.750 (0.740 to 0.760)"]
        {
            assert!(html.contains(part), "{part}: {html}");
        }
    }
}
