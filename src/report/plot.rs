//! Charts of curves, as SVG and PNG.

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::error::{Error, Result};

/// The size of a chart in pixels.
const SIZE: (u32, u32) = (900, 860);
/// The colours of Okabe and Ito, which colour-blind readers can distinguish too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// A curve, or single points, with its entry in the legend.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The text in the legend.
    pub label: String,
    /// The points (x, y), inside the chart's ranges.
    pub points: Vec<(f64, f64)>,
    /// Whether the points are drawn as markers instead of a line.
    pub marks: bool,
    /// The index of the colour.
    pub colour: usize,
}

/// A chart, of the square from 0 to 1 by default.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// The label of the x axis.
    pub x: String,
    /// The label of the y axis.
    pub y: String,
    /// Whether the diagonal from (0, 0) to (1, 1) is drawn, which is the ROC curve of random scores.
    pub diagonal: bool,
    /// The series, in the order of the legend.
    pub series: Vec<Series>,
    /// The first and the last value of the x and of the y axis; 0 to 1 without them.
    pub range: Option<[[f64; 2]; 2]>,
}

/// Registers the font that is part of the program, so that charts look the same on machines without fonts.
fn font() -> Result<()> {
    static READY: OnceLock<bool> = OnceLock::new();
    let register = || register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).is_ok();
    if *READY.get_or_init(register) { Ok(()) } else { Err(Error::Data("chart: the font cannot be read".into())) }
}

impl Chart {
    /// The chart as an SVG document.
    ///
    /// # Errors
    /// An error of the drawing library.
    pub fn svg(&self) -> Result<String> {
        font()?;
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
        Ok(text)
    }

    /// The chart as the bytes of a PNG file.
    ///
    /// # Errors
    /// An error of the drawing library.
    pub fn png(&self) -> Result<Vec<u8>> {
        font()?;
        let mut pixels = vec![0u8; SIZE.0 as usize * SIZE.1 as usize * 3];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area())?;
        let mut file = std::io::Cursor::new(Vec::new());
        image::write_buffer_with_format(
            &mut file,
            &pixels,
            SIZE.0,
            SIZE.1,
            image::ExtendedColorType::Rgb8,
            image::ImageFormat::Png,
        )
        .map_err(|e| Error::other("chart", e))?;
        Ok(file.into_inner())
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        self.try_draw(area).map_err(|e| Error::other(format!("chart '{}'", self.title), e))
    }

    fn try_draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&WHITE)?;
        let [[left, right], [bottom, top]] = self.range.unwrap_or([[0.0, 1.0]; 2]);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 28))
            .margin(16)
            .x_label_area_size(56)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right, bottom..top)?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(11)
            .y_labels(11)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 18))
            .axis_desc_style(("sans-serif", 20))
            .draw()?;
        if self.diagonal {
            let chance = DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 6, 6, RGBColor(150, 150, 150).into());
            chart.draw_series(chance)?;
        }
        for series in &self.series {
            let colour = COLOURS[series.colour % COLOURS.len()];
            if series.marks {
                chart
                    .draw_series(series.points.iter().map(|p| TriangleMarker::new(*p, 7, colour.filled())))?
                    .label(&series.label)
                    .legend(move |(x, y)| TriangleMarker::new((x + 12, y), 7, colour.filled()));
            } else {
                chart
                    .draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?
                    .label(&series.label)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .legend_area_size(32)
            .margin(12)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(190, 190, 190))
            .label_font(("sans-serif", 18))
            .draw()?;
        area.present()
    }
}
