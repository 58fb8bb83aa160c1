//! What a bundle's graphs are run on.

use std::fmt;
use std::str::FromStr;

/// `auto`, `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU: networks of this size are faster there than on their way to a GPU and back, and
    /// what a seed gives does not change with the machine's GPUs.
    #[default]
    Auto,
    /// The CPU, and small graphs without ONNX Runtime.
    Cpu,
    /// An NVIDIA GPU by number, through the CUDA provider of ONNX Runtime, which runs every
    /// graph then; without it or the GPU generation fails and does not fall back. Its sums
    /// depend on how many flows are computed together, so the output has the same
    /// distribution for any number of threads and slots, but not the same bytes.
    Cuda(u16),
}

impl Device {
    /// The GPU's number.
    #[must_use]
    pub fn cuda(self) -> Option<u16> {
        match self {
            Device::Cuda(number) => Some(number),
            Device::Auto | Device::Cpu => None,
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        match text {
            "auto" => Some(Device::Auto),
            "cpu" => Some(Device::Cpu),
            "cuda" => Some(Device::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok().map(Device::Cuda)),
        }
        .ok_or_else(|| "expected `auto`, `cpu` or `cuda:N`".to_owned())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spelled_as_documented() {
        for (text, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda:0", Device::Cuda(0)),
            ("cuda:12", Device::Cuda(12)),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:65536"] {
            let error = wrong.parse::<Device>().unwrap_err();
            assert_eq!(error, "expected `auto`, `cpu` or `cuda:N`", "{wrong}");
        }
    }
}
