//! Plots as SVG, by plotters.

use super::json::RunRecord;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::full_palette;

const SIZE: (u32, u32) = (760, 420);
/// Told apart also by readers who do not see red and green.
const COLORS: [RGBColor; 8] = [
    full_palette::BLUE_700,
    full_palette::ORANGE_800,
    full_palette::TEAL_600,
    full_palette::PURPLE_500,
    full_palette::BROWN_500,
    full_palette::PINK_600,
    full_palette::BLUEGREY_600,
    full_palette::LIME_900,
];

/// A run and what to call it.
pub struct Labelled {
    pub label: String,
    pub record: RunRecord,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Points of one run.
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
}

fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

fn draw(
    paint: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let painted = area
            .fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| paint(&area))
            .and_then(|()| area.present().map_err(Into::into));
        painted.map_err(|error| format!("cannot draw: {error}"))?;
    }
    Ok(svg)
}

/// Latency over percentile; the axis shows each further nine as a step.
pub fn percentiles(runs: &[Labelled], measure: &str) -> Result<Option<String>, String> {
    let lines: Vec<Line> = runs
        .iter()
        .filter_map(|run| {
            let latency = run.record.latency.get(measure)?;
            let points = latency.curve.iter().map(|(quantile, ns)| {
                let nines = -(1.0 - quantile).max(1e-7).log10();
                (nines, (*ns).max(1) as f64 / 1e6)
            });
            Some(Line {
                label: run.label.clone(),
                points: points.filter(|(nines, _)| *nines < 6.5).collect(),
            })
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let (x_max, y) = (max(&lines, |p| p.0).max(1.0), range(&lines));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..x_max, y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("latency in ms")
            .x_label_formatter(&|nines| percentile_label(*nines))
            .y_label_formatter(&|ms| number(*ms))
            .x_labels(7)
            .draw()?;
        for (index, line) in lines.iter().enumerate() {
            let style = color(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        legend(&mut chart)?;
        Ok(())
    })
    .map(Some)
}

fn legend<'a, 'b: 'a, X: Ranged, Y: Ranged>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
) -> Result<(), Box<dyn std::error::Error>> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(full_palette::GREY_400)
        .draw()
        .map_err(|error| error.to_string().into())
}

/// Deliveries per second over time.
pub fn throughput(runs: &[Labelled]) -> Result<Option<String>, String> {
    over_time(runs, "deliveries per second", |second| {
        second.delivered as f64
    })
}

/// The 99th percentile of each second over time, in ms.
pub fn latency_over_time(runs: &[Labelled]) -> Result<Option<String>, String> {
    over_time(runs, "p99 of each second in ms", |second| {
        second.p99 as f64 / 1e6
    })
}

fn over_time(
    runs: &[Labelled],
    what: &str,
    value: impl Fn(&super::json::SecondRecord) -> f64,
) -> Result<Option<String>, String> {
    let lines: Vec<Line> = runs
        .iter()
        .map(|run| {
            let loaded = run.record.seconds.iter().filter(|s| s.delivered > 0);
            let first = loaded.clone().map(|s| s.second).min().unwrap_or(0);
            Line {
                label: run.label.clone(),
                points: loaded
                    .map(|s| ((s.second - first) as f64, value(s)))
                    .collect(),
            }
        })
        .filter(|line| line.points.len() > 1)
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let (x_max, y_max) = (
        max(&lines, |p| p.0).max(1.0),
        max(&lines, |p| p.1).max(1e-3),
    );
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max * 1.15)?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_desc(what)
            .y_label_formatter(&|value| number(*value))
            .draw()?;
        for (index, line) in lines.iter().enumerate() {
            let style = color(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        legend(&mut chart)?;
        Ok(())
    })
    .map(Some)
}

/// One bar per run.
pub fn bars(
    runs: &[Labelled],
    what: &str,
    value: impl Fn(&RunRecord) -> Option<f64>,
) -> Result<Option<String>, String> {
    let bars: Vec<(String, f64)> = runs
        .iter()
        .filter_map(|run| Some((run.label.clone(), value(&run.record)?)))
        .collect();
    if bars.is_empty() {
        return Ok(None);
    }
    let count = bars.len() as f64;
    let longest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(1e-9);
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(16)
            .build_cartesian_2d(0.0..longest * 1.2, 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(what)
            .x_label_formatter(&|value| number(*value))
            .draw()?;
        for (index, (label, value)) in bars.iter().enumerate() {
            let bottom = count - 1.0 - index as f64;
            let corners = [(0.0, bottom + 0.15), (*value, bottom + 0.55)];
            chart.draw_series([Rectangle::new(corners, color(index).filled())])?;
            let text = format!("{label}: {}", number(*value));
            let font = ("sans-serif", 15).into_font();
            chart.draw_series([Text::new(text, (longest * 0.01, bottom + 0.85), font)])?;
        }
        Ok(())
    })
    .map(Some)
}

fn max(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let points = lines.iter().flat_map(|line| line.points.iter());
    points.map(of).fold(0.0, f64::max)
}

fn range(lines: &[Line]) -> std::ops::Range<f64> {
    let points = lines.iter().flat_map(|line| line.points.iter());
    let low = points.map(|p| p.1).fold(f64::INFINITY, f64::min).max(1e-6);
    low * 0.8..max(lines, |p| p.1).max(low) * 1.5
}

fn percentile_label(nines: f64) -> String {
    if nines < 0.01 {
        return "0".into();
    }
    let digits = (nines.ceil() as usize)
        .saturating_sub(2)
        .max(usize::from(nines.fract() > 0.01));
    format!("{:.digits$}", 100.0 * (1.0 - 10_f64.powf(-nines)))
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => {
            format!("{:.4}", v / 1e6)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + "M"
        }
        v if v >= 1e4 => format!("{:.0}K", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.2}"),
        0.0 => "0".into(),
        v => format!("{v:.3}"),
    }
}
