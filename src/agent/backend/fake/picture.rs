//! Screens of sessions that nobody sees: a pattern of tiles that is the id's own, as a real image.

use std::io::Cursor;

use image::ImageError;
use image::Rgb;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use sha2::Digest;
use sha2::Sha256;

use crate::agent::backend::ImageFormat;
use crate::agent::backend::ScreenshotRequest;

/// Size of every screen.
const SCREEN: (u32, u32) = (1280, 720);
/// Tiles across and down.
const TILES: (u32, u32) = (4, 2);
/// As the desktop server does.
const JPEG_QUALITY: u8 = 80;

/// Takes a screenshot of session `id`.
pub fn take(id: &str, request: ScreenshotRequest) -> Result<Vec<u8>, ImageError> {
    let (width, height) = fit(SCREEN, (request.max_width, request.max_height));
    let digest = Sha256::digest(id);
    let image = RgbImage::from_fn(width, height, |x, y| {
        let tile = (y * TILES.1 / height) * TILES.0 + x * TILES.0 / width;
        let start = tile as usize * 3;
        Rgb([digest[start], digest[start + 1], digest[start + 2]])
    });
    let mut bytes = Cursor::new(Vec::new());
    match request.format {
        ImageFormat::Png => image.write_with_encoder(PngEncoder::new(&mut bytes))?,
        ImageFormat::Jpeg => image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?,
    }
    Ok(bytes.into_inner())
}

/// The largest size within `limit` with the ratio of `size`; never larger than `size`, never nothing.
fn fit(size: (u32, u32), limit: (u32, u32)) -> (u32, u32) {
    let (width, height) = (u64::from(size.0), u64::from(size.1));
    let (most_width, most_height) = (u64::from(limit.0.min(size.0)), u64::from(limit.1.min(size.1)));
    let by_width = (most_width, most_width * height / width);
    let by_height = (most_height * width / height, most_height);
    let (width, height) = if by_width.1 <= most_height { by_width } else { by_height };
    (u32::try_from(width.max(1)).unwrap_or(1), u32::try_from(height.max(1)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_and_keeps_its_ratio() {
        assert_eq!(fit((1280, 720), (160, 100)), (160, 90));
        assert_eq!(fit((1280, 720), (1000, 90)), (160, 90));
        assert_eq!(fit((1280, 720), (9999, 9999)), (1280, 720));
        assert_eq!(fit((1280, 720), (1, 1)), (1, 1));
    }

    #[test]
    fn each_session_has_its_own_picture() {
        let request = ScreenshotRequest { max_width: 32, max_height: 18, format: ImageFormat::Png };
        assert_eq!(take("a", request).unwrap(), take("a", request).unwrap());
        assert_ne!(take("a", request).unwrap(), take("b", request).unwrap());
    }
}
