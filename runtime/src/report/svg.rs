//! Line charts as SVG.

use std::fmt::Write;

/// A line of a chart.
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Points from left to right; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Left, right, top and bottom margins.
const MARGIN: (f64, f64, f64, f64) = (64.0, 16.0, 36.0, 44.0);
/// Distinguishable with colour-blindness too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A chart with axes, labels and a legend. Without any point it says so.
pub fn chart(title: &str, x_label: &str, lines: &[Line]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        MARGIN.0,
        escape(title)
    );
    let finite = |l: &Line| -> Vec<(f64, f64)> {
        l.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let all: Vec<(f64, f64)> = lines.iter().flat_map(finite).collect();
    if all.is_empty() {
        out.push_str("<text x=\"64\" y=\"160\">nothing was measured</text>\n</svg>\n");
        return out;
    }
    let (x_lo, x_hi) = range(all.iter().map(|p| p.0));
    let (y_lo, y_hi) = range(all.iter().map(|p| p.1));
    let (x_ticks, y_ticks) = (ticks(x_lo, x_hi), ticks(y_lo, y_hi));
    let (right, bottom) = (WIDTH - MARGIN.1, HEIGHT - MARGIN.3);
    let x_of = |x: f64| MARGIN.0 + (x - x_lo) / (x_hi - x_lo) * (right - MARGIN.0);
    let y_of = |y: f64| bottom - (y - y_lo) / (y_hi - y_lo) * (bottom - MARGIN.2);
    for &t in &x_ticks {
        let x = x_of(t);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {bottom}V{}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            MARGIN.2,
            bottom + 16.0,
            number(t)
        );
    }
    for &t in &y_ticks {
        let y = y_of(t);
        let _ = writeln!(
            out,
            "<path d=\"M{} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            MARGIN.0,
            MARGIN.0 - 6.0,
            y + 4.0,
            number(t)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (MARGIN.0 + right) / 2.0,
        HEIGHT - 8.0,
        escape(x_label)
    );
    let mut legend = right;
    for (n, line) in lines.iter().enumerate().rev() {
        let colour = COLOURS[n % COLOURS.len()];
        let mut path = String::new();
        for (k, (x, y)) in finite(line).into_iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if k == 0 { 'M' } else { 'L' }, x_of(x), y_of(y));
        }
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>");
        let name = escape(&line.name);
        let _ = writeln!(out, "<text x=\"{legend:.1}\" y=\"20\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>");
        legend -= 7.0 * line.name.chars().count() as f64 + 16.0;
    }
    out.push_str("</svg>\n");
    out
}

/// Lowest and highest value, a little apart where they are equal.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (lo, hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    if hi > lo {
        (lo, hi)
    } else {
        let pad = (lo.abs() * 0.1).max(1e-6);
        (lo - pad, hi + pad)
    }
}

/// About five round numbers between the two.
fn ticks(lo: f64, hi: f64) -> Vec<f64> {
    let raw = (hi - lo) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= raw).unwrap_or(raw);
    let first = (lo / step).ceil() as i64;
    (first..first + 12).map(|k| k as f64 * step).take_while(|&t| t <= hi * (1.0 + 1e-12) + 1e-300).collect()
}

/// A short form of a number.
fn number(x: f64) -> String {
    if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) {
        return format!("{x:.1e}");
    }
    let text = format!("{x:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text inside XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_hold_their_lines() {
        let lines = [
            Line { name: "a<b".into(), points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)] },
            Line { name: "c".into(), points: vec![(1.0, 2.0)] },
        ];
        let svg = chart("T", "step", &lines);
        assert!(svg.contains("a&lt;b") && svg.contains("M64.0 276.0L624.0 36.0"), "{svg}");
        assert!(chart("T", "step", &[]).contains("nothing was measured"));
        assert!(chart("T", "step", &[Line { name: "flat".into(), points: vec![(1.0, 5.0)] }]).contains("<path"));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(0.0, 1500.0), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!([0.0, 0.25, 1500.0, 1e-5, 2e7].map(number), ["0", "0.25", "1500", "1.0e-5", "2.0e7"]);
    }
}
