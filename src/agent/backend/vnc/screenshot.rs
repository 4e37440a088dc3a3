//! Pictures of a session's screen, by RFB: the same for every server behind the seam, X11 or not.
//!
//! The pointer is in the picture, as we do not ask for it apart. All reading is bounded: the server behind the socket is
//! the owner's.

use std::io::Cursor;
use std::time::Duration;

use image::DynamicImage;
use image::ImageEncoder;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::FilterType;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::rfb;
use crate::agent::backend::ImageFormat;
use crate::agent::backend::ScreenshotRequest;

/// Time for the whole exchange with the desktop.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest screen that is taken: 8K, and a little more.
const PIXELS_MAX: usize = 40_000_000;
/// Quality of JPEG, of 100.
const JPEG_QUALITY: u8 = 80;
/// 32 bits a pixel, 24 deep, little endian, 8 bits a colour with red first: the bytes are red, green, blue, unused.
const PIXEL_FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScreenshotError {
    #[error("the desktop did not send its screen in time")]
    TimedOut,
    #[error("the connection to the desktop broke")]
    Io(#[from] std::io::Error),
    #[error("the desktop did not greet")]
    Handshake(#[from] rfb::HandshakeError),
    #[error("the desktop sent something else than its screen")]
    Unexpected,
    #[error("the screen of {0} x {1} pixels is too large")]
    TooLarge(u16, u16),
    #[error("the picture could not be encoded")]
    Encode(#[from] image::ImageError),
}

/// Reads the whole screen.
pub(super) async fn fetch(desktop: UnixStream) -> Result<RgbImage, ScreenshotError> {
    tokio::time::timeout(LIMIT, fetch_unbounded(desktop)).await.map_err(|_| ScreenshotError::TimedOut)?
}

async fn fetch_unbounded(mut desktop: UnixStream) -> Result<RgbImage, ScreenshotError> {
    let init = rfb::connect(&mut desktop).await?;
    let (width, height) = (usize::from(init.width), usize::from(init.height));
    if width == 0 || height == 0 || width * height > PIXELS_MAX {
        return Err(ScreenshotError::TooLarge(init.width, init.height));
    }
    let mut request = vec![0, 0, 0, 0];
    request.extend(PIXEL_FORMAT);
    // One encoding: Raw.
    request.extend([2, 0, 0, 1, 0, 0, 0, 0]);
    request.extend([3, 0, 0, 0, 0, 0]);
    request.extend(init.width.to_be_bytes());
    request.extend(init.height.to_be_bytes());
    desktop.write_all(&request).await?;
    let mut pixels = vec![0; width * height * 3];
    let mut missing = width * height;
    let mut row = Vec::new();
    while missing > 0 {
        match desktop.read_u8().await? {
            0 => {}
            2 => continue,
            3 => {
                desktop.read_exact(&mut [0; 3]).await?;
                let length = desktop.read_u32().await?;
                if usize::try_from(length).is_ok_and(|length| length > rfb::MESSAGE_BYTES_MAX) {
                    return Err(ScreenshotError::Unexpected);
                }
                tokio::io::copy(&mut (&mut desktop).take(u64::from(length)), &mut tokio::io::sink()).await?;
                continue;
            }
            _ => return Err(ScreenshotError::Unexpected),
        }
        desktop.read_u8().await?;
        for _ in 0..desktop.read_u16().await? {
            let mut head = [0; 12];
            desktop.read_exact(&mut head).await?;
            let [x, y, w, h] = [0, 2, 4, 6].map(|at| usize::from(u16::from_be_bytes([head[at], head[at + 1]])));
            if head[8..] != [0; 4] || x + w > width || y + h > height {
                return Err(ScreenshotError::Unexpected);
            }
            row.resize(w * 4, 0);
            for line in y..y + h {
                desktop.read_exact(&mut row).await?;
                let start = (line * width + x) * 3;
                for (to, from) in pixels[start..start + w * 3].chunks_exact_mut(3).zip(row.chunks_exact(4)) {
                    to.copy_from_slice(&from[..3]);
                }
            }
            missing = missing.saturating_sub(w * h);
        }
    }
    RgbImage::from_raw(u32::from(init.width), u32::from(init.height), pixels).ok_or(ScreenshotError::Unexpected)
}

/// Scales down to what was asked for and encodes. Takes tens of milliseconds: not for an asynchronous thread.
pub(super) fn encode(screen: RgbImage, request: ScreenshotRequest) -> Result<Vec<u8>, ScreenshotError> {
    let (width, height) = scaled(screen.width(), screen.height(), request.max_width, request.max_height);
    let picture = if (width, height) == screen.dimensions() {
        screen
    } else {
        DynamicImage::from(screen).resize_exact(width, height, FilterType::Triangle).into_rgb8()
    };
    let mut encoded = Cursor::new(Vec::new());
    match request.format {
        ImageFormat::Png => {
            PngEncoder::new(&mut encoded).write_image(&picture, width, height, image::ExtendedColorType::Rgb8)?;
        }
        ImageFormat::Jpeg => JpegEncoder::new_with_quality(&mut encoded, JPEG_QUALITY).encode_image(&picture)?,
    }
    Ok(encoded.into_inner())
}

/// The largest size within the bounds with the same ratio, never larger than it is, at least one pixel.
fn scaled(width: u32, height: u32, max_width: u32, max_height: u32) -> (u32, u32) {
    let [w, h, max_w, max_h] = [width, height, max_width.max(1), max_height.max(1)].map(u64::from);
    if w <= max_w && h <= max_h {
        return (width, height);
    }
    // The bound that is reached first, as a fraction that is exact.
    let (numerator, denominator) = if max_w * h <= max_h * w { (max_w, w) } else { (max_h, h) };
    let part = |length: u64| u32::try_from((length * numerator + denominator / 2) / denominator).unwrap_or(1).max(1);
    (part(w), part(h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_keeps_its_ratio_and_never_grows() {
        for (size, bounds, expected) in [
            ((1920, 1080), (4000, 4000), (1920, 1080)),
            ((1920, 1080), (1920, 1080), (1920, 1080)),
            ((1920, 1080), (800, 800), (800, 450)),
            ((1920, 1080), (4000, 540), (960, 540)),
            ((1000, 10), (10, 10), (10, 1)),
            ((10_000, 3), (10, 10), (10, 1)),
            ((640, 480), (0, 0), (1, 1)),
            ((65535, 65535), (u32::MAX, u32::MAX), (65535, 65535)),
        ] {
            assert_eq!(scaled(size.0, size.1, bounds.0, bounds.1), expected, "{size:?} in {bounds:?}");
        }
    }

    #[test]
    fn both_formats_decode_to_the_screen() {
        let screen = RgbImage::from_fn(40, 20, |x, _| image::Rgb(if x < 20 { [255, 0, 0] } else { [0, 0, 255] }));
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let request = ScreenshotRequest { max_width: 20, max_height: 20, format };
            let picture = image::load_from_memory(&encode(screen.clone(), request).unwrap()).unwrap().into_rgb8();
            assert_eq!(picture.dimensions(), (20, 10));
            let (left, right) = (picture.get_pixel(2, 5).0, picture.get_pixel(17, 5).0);
            assert!(left[0] > 200 && left[2] < 50 && right[2] > 200 && right[0] < 50, "{left:?} {right:?}");
        }
    }
}
