//! Where to train.

use crate::autoregressive::ModelClass;
use candle_core::Device;

/// `auto`, `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first GPU if this build and machine have one and the networks gain by it, else
    /// the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let cuda = |number: &str| number.parse().ok().map(Choice::Cuda);
        match text {
            "auto" => Some(Choice::Auto),
            "cpu" => Some(Choice::Cpu),
            "cuda" => Some(Choice::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(cuda),
        }
        .ok_or_else(|| "expected `auto`, `cpu` or `cuda:N`".to_owned())
    }
}

impl Choice {
    /// Opens the device to train networks of a class on.
    ///
    /// An autoregressive model's are so small that a CPU has done with a step while a GPU
    /// is being told what to do in it: it trains on one only where one is asked for.
    ///
    /// # Errors
    /// As [`Choice::open`].
    pub fn open_for(self, class: ModelClass) -> anyhow::Result<Device> {
        match (self, class) {
            (Choice::Auto, ModelClass::Autoregressive) => Choice::Cpu.open(),
            _ => self.open(),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// A GPU was asked for, and this build or machine has none.
    pub fn open(self) -> anyhow::Result<Device> {
        match self {
            Choice::Cpu => Ok(Device::Cpu),
            Choice::Auto => Ok(open_cuda(0).unwrap_or(Device::Cpu)),
            Choice::Cuda(number) => open_cuda(number),
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_number: usize) -> anyhow::Result<Device> {
    anyhow::bail!(
        "this ns-train was built without CUDA; build one with `./run cuda`, or use `--device cpu`"
    )
}

#[cfg(feature = "cuda")]
fn open_cuda(number: usize) -> anyhow::Result<Device> {
    use anyhow::Context;
    use std::panic;

    // A library of CUDA's that is not there (the driver's, cuBLAS, cuRAND) is a
    // panic inside cudarc, not an error, where it is loaded on first use.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let opened = panic::catch_unwind(|| {
        let device = Device::new_cuda(number)?;
        crate::model::ops::cuda::prepare(&device)?;
        Ok::<_, candle_core::Error>(device)
    });
    panic::set_hook(hook);
    match opened {
        // Without the backtrace that candle adds, which is of no use to who asked for a GPU.
        Ok(opened) => opened
            .map_err(|error| match error {
                candle_core::Error::WithBacktrace { inner, .. } => *inner,
                error => error,
            })
            .with_context(|| format!("cannot open `cuda:{number}`")),
        Err(cause) => {
            // Behind the dash it lists dozens of file names.
            let cause = cause.downcast_ref::<String>().and_then(|text| text.split(" - ").next());
            let cause = cause.unwrap_or("CUDA's libraries cannot be loaded");
            anyhow::bail!("cannot open `cuda:{number}`: {cause}; use `--device cpu`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spelled_as_documented() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cpu".parse(), Ok(Choice::Cpu));
        assert_eq!("cuda:1".parse(), Ok(Choice::Cuda(1)));
        assert!("cuda:x".parse::<Choice>().is_err());
        assert!("gpu".parse::<Choice>().is_err());
    }
}
