//! A bar chart as SVG, written without a library. Pure.
//!
//! Groups and their bars are stacked vertically, and each bar has its number: the chart is readable
//! without a legend, without color and on a dark page.

use std::fmt::Write as _;

/// A group of compared bars.
#[derive(Clone, Debug)]
pub struct Group {
    /// The measured scenario.
    pub label: String,
    /// Name and value of each bar.
    pub bars: Vec<(String, f64)>,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 96.0;
/// Space for the number after the longest bar.
const RIGHT: f64 = 70.0;
const BAR: f64 = 16.0;
const GAP: f64 = 4.0;
const HEADING: f64 = 30.0;
const TOP: f64 = 52.0;

/// Draws `groups` on a common scale. The first bar of each group is that of cless and darker.
pub fn svg(title: &str, subtitle: &str, groups: &[Group]) -> String {
    let values = groups.iter().flat_map(|group| &group.bars);
    let largest = values.fold(f64::MIN_POSITIVE, |most, (_, value)| most.max(*value));
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TOP + groups.len() as f64 * HEADING + rows as f64 * (BAR + GAP) + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"bold\" fill=\"#1b1f24\">{0}</text>\n\
         <text x=\"12\" y=\"40\" fill=\"#57606a\">{1}</text>\n",
        escaped(title),
        escaped(subtitle),
    );
    let mut y = TOP;
    for group in groups {
        let label = escaped(&group.label);
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"{}\" font-weight=\"bold\" fill=\"#1b1f24\">{label}</text>",
            y + HEADING - 8.0
        );
        y += HEADING;
        for (at, (name, value)) in group.bars.iter().enumerate() {
            let width = value.max(0.0) / largest * (WIDTH - LEFT - RIGHT);
            let colour = if at == 0 { "#0b5cad" } else { "#a8b3bf" };
            let base = y + BAR - 4.0;
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\" fill=\"#1b1f24\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{base}\" fill=\"#1b1f24\">{value:.1}</text>",
                LEFT - 8.0,
                escaped(name),
                LEFT + width + 6.0,
            );
            y += BAR + GAP;
        }
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_text_is_escaped() {
        let group = |label: &str, bars: &[(&str, f64)]| Group {
            label: label.to_owned(),
            bars: bars
                .iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect(),
        };
        let chart = svg(
            "a < b & c",
            "less is better",
            &[
                group("one", &[("cless", 10.0), ("nginx", 20.0)]),
                group("two", &[("cless", 5.0)]),
            ],
        );
        assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
        assert!(chart.contains("a &lt; b &amp; c"));
        // The longest bar fills what margins leave: 554; the others are a half and a quarter of it.
        for width in ["554.0", "277.0", "138.5"] {
            assert!(
                chart.contains(&format!("width=\"{width}\" height=\"16\"")),
                "{width}"
            );
        }
        assert_eq!(chart.matches("#0b5cad").count(), 2, "ours, once a group");
        assert_eq!(
            chart,
            svg(
                "a < b & c",
                "less is better",
                &[
                    group("one", &[("cless", 10.0), ("nginx", 20.0)]),
                    group("two", &[("cless", 5.0)]),
                ]
            ),
            "pure"
        );
    }

    #[test]
    fn nothing_to_show_is_no_panic() {
        assert!(svg("", "", &[]).contains("</svg>"));
        let zero = Group {
            label: String::new(),
            bars: vec![("a".to_owned(), 0.0)],
        };
        assert!(svg("", "", &[zero]).contains("width=\"0.0\""));
    }
}
