//! What the description of a TIFF says of its axes: tifffile goes by it, not by the pages alone.

use nephron_compute::shown;

/// The axes that the description gives, or None where it gives none.
///
/// # Errors
/// OME-XML, which orders pages by itself, and an ImageJ stack of several axes or of pages that have no directory of their own: the
/// message says what was expected and what was found.
pub(super) fn axes(text: &str, pages: usize) -> Result<Option<Vec<usize>>, String> {
    if text.contains("<OME") {
        return Err("expected pages in their own order, found OME-TIFF".into());
    }
    if text.starts_with("ImageJ=") {
        let number = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            value.map_or(Ok(1), |value| {
                value
                    .trim()
                    .parse::<usize>()
                    .map_err(|_| format!("ImageJ's {key}: expected a number, found {}", shown(value)))
            })
        };
        let images = number("images")?;
        if images != pages {
            return Err(format!("expected a page for each of ImageJ's {images} images, found {pages}"));
        }
        let sizes = [number("channels")?, number("slices")?, number("frames")?];
        if sizes.iter().filter(|size| **size > 1).count() > 1 {
            let [channels, slices, frames] = sizes;
            let found = format!("{channels} channels, {slices} slices and {frames} frames");
            return Err(format!("expected an ImageJ stack along one axis, found {found}"));
        }
        return Ok(None);
    }
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text.trim_end_matches('\0')) else { return Ok(None) };
    let Some(list) = value["shape"].as_array() else { return Ok(None) };
    let sizes: Option<Vec<usize>> = list.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect();
    sizes.map(Some).ok_or_else(|| format!("expected sizes as its shape, found {}", shown(&value["shape"].to_string())))
}

#[cfg(test)]
mod tests {
    use super::axes;

    #[test]
    fn descriptions_that_order_pages_are_understood_or_refused() {
        assert_eq!(axes("", 3), Ok(None));
        assert_eq!(axes("a scan of {unknown} origin", 1), Ok(None));
        assert_eq!(axes("{\"shape\": [1, 5, 7]}", 1), Ok(Some(vec![1, 5, 7])));
        assert_eq!(axes("{\"shape\": [2, 3, 5, 7]}\0", 6), Ok(Some(vec![2, 3, 5, 7])));
        assert_eq!(axes("ImageJ=1.11a\nimages=4\nslices=4\nloop=false", 4), Ok(None));
        let refused = |text: &str, pages: usize, part: &str| {
            let message = axes(text, pages).expect_err("refused");
            assert!(message.contains(part), "{message}");
        };
        refused("ImageJ=1.53\nimages=8\nchannels=2\nslices=4", 8, "2 channels, 4 slices");
        refused("ImageJ=1.53\nimages=400\nslices=400", 1, "400 images, found 1");
        refused("ImageJ=1.53\nimages=x", 1, "found x");
        refused("<?xml version=\"1.0\"?><OME xmlns=\"...\">", 4, "OME-TIFF");
        refused("{\"shape\": [-1, 5]}", 1, "[-1,5]");
    }
}
