//! A trained generator's weights as plain numbers, ready to export.

/// `y = x @ weight + bias`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Linear {
    /// `[inputs, outputs]`, row by row.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// BatchNorm at inference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchNorm {
    /// Scale.
    pub gamma: Vec<f32>,
    /// Shift.
    pub beta: Vec<f32>,
    /// Running mean.
    pub mean: Vec<f32>,
    /// Running variance.
    pub variance: Vec<f32>,
}

impl BatchNorm {
    /// Added to the variance, as in training.
    pub const EPSILON: f32 = 1e-5;

    /// The map as `x * scale + shift`.
    #[must_use]
    pub fn affine(&self) -> (Vec<f32>, Vec<f32>) {
        let scale: Vec<f32> = self
            .gamma
            .iter()
            .zip(&self.variance)
            .map(|(gamma, variance)| gamma / (variance + Self::EPSILON).sqrt())
            .collect();
        let shift = self
            .beta
            .iter()
            .zip(self.mean.iter().zip(&scale))
            .map(|(beta, (mean, scale))| beta - mean * scale)
            .collect();
        (scale, shift)
    }
}

/// Linear, ReLU, BatchNorm, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HiddenLayer {
    /// The linear map.
    pub linear: Linear,
    /// What follows the ReLU.
    pub norm: BatchNorm,
}

/// The generator of a DoppelGANger: A attribute, C condition, M measurement
/// values in training layout, Z noise, H hidden, S records a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeneratorWeights {
    /// The attribute generator's hidden layers; the first takes `[noise, condition]`.
    pub attribute_hidden: Vec<HiddenLayer>,
    /// All attributes at once, `[units, A]`.
    pub attribute_head: Linear,
    /// The hidden layers of the network of additional attributes, if there is
    /// one; the first takes `[noise, condition, the other attributes made discrete]`.
    pub additional_hidden: Vec<HiddenLayer>,
    /// All additional attributes at once, `[units, additional]`; the last of the A.
    pub additional_head: Linear,
    /// Gates in the order input, forget, candidate, output. `[A, 4H]`.
    pub lstm_attributes: Vec<f32>,
    /// `[C, 4H]`.
    pub lstm_condition: Vec<f32>,
    /// `[Z, 4H]`.
    pub lstm_noise: Vec<f32>,
    /// `[H, 4H]`.
    pub lstm_hidden: Vec<f32>,
    /// `[4H]`.
    pub lstm_bias: Vec<f32>,
    /// All records of a step at once, `[H, S * M]`.
    pub record_head: Linear,
}

impl GeneratorWeights {
    /// H.
    #[must_use]
    pub fn hidden_dim(&self) -> usize {
        self.lstm_bias.len() / 4
    }

    /// Z of a step.
    #[must_use]
    pub fn noise_dim(&self) -> usize {
        self.lstm_noise.len() / self.lstm_bias.len().max(1)
    }

    /// Noise values of the attribute generator, and of the network of
    /// additional attributes (0 without one).
    #[must_use]
    pub fn attribute_noise_dims(&self, condition_dim: usize) -> (usize, usize) {
        let inputs = |hidden: &[HiddenLayer], head: &Linear| {
            let first = hidden.first().map_or(head, |layer| &layer.linear).clone();
            first.weight.len() / first.bias.len().max(1)
        };
        let own = self.attribute_head.bias.len();
        (
            inputs(&self.attribute_hidden, &self.attribute_head).saturating_sub(condition_dim),
            inputs(&self.additional_hidden, &self.additional_head)
                .saturating_sub(condition_dim + own),
        )
    }

    /// From tensors under the names of [`Self::tensors`], whose shapes follow from
    /// one another's; `None` if one is missing or does not fit.
    pub(crate) fn from_tensors(
        mut take: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Option<GeneratorWeights> {
        let mut hidden = |network: &str| {
            let layer = |index: usize| {
                let mut part = |part: &str| take(&format!("{network}.{index}.{part}"));
                let linear = Linear { weight: part("weight")?, bias: part("bias")? };
                let norm = BatchNorm {
                    gamma: part("norm.gamma")?,
                    beta: part("norm.beta")?,
                    mean: part("norm.mean")?,
                    variance: part("norm.variance")?,
                };
                Some(HiddenLayer { linear, norm })
            };
            (0..).map_while(layer).collect::<Vec<_>>()
        };
        let (attribute_hidden, additional_hidden) = (hidden("attributes"), hidden("additional"));
        let mut head = |name: &str| {
            let (weight, bias) = (format!("{name}.head.weight"), format!("{name}.head.bias"));
            Some(Linear { weight: take(&weight)?, bias: take(&bias)? })
        };
        let weights = GeneratorWeights {
            attribute_head: head("attributes")?,
            record_head: head("records")?,
            additional_head: head("additional").unwrap_or_default(),
            lstm_attributes: take("lstm.attributes")?,
            // Without conditions it is empty, and empty tensors are not kept.
            lstm_condition: take("lstm.condition").unwrap_or_default(),
            lstm_noise: take("lstm.noise")?,
            lstm_hidden: take("lstm.hidden")?,
            lstm_bias: take("lstm.bias")?,
            attribute_hidden,
            additional_hidden,
        };
        let layers = weights.attribute_hidden.iter().chain(&weights.additional_hidden);
        let fits = |linear: &Linear| match linear.bias.len() {
            0 => linear.weight.is_empty(),
            columns => linear.weight.len().is_multiple_of(columns),
        };
        let heads = [&weights.attribute_head, &weights.record_head, &weights.additional_head];
        let (hidden, gates) = (weights.hidden_dim(), weights.lstm_bias.len());
        let fits = layers.map(|layer| &layer.linear).chain(heads).all(fits)
            && weights.lstm_hidden.len() == hidden * gates
            && gates > 0;
        fits.then_some(weights)
    }

    /// Moves every number a part of the way towards `other`'s, which has the same shapes.
    pub fn approach(&mut self, other: &GeneratorWeights, part: f32) {
        let theirs = other.tensors();
        for (ours, (_, _, theirs)) in self.tensors_mut().into_iter().zip(theirs) {
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                *ours += part * (theirs - *ours);
            }
        }
    }

    /// Replaces all numbers, tensors in the order of [`Self::tensors`]; if sizes
    /// differ, what was found and what is expected.
    pub(crate) fn set_tensors(&mut self, tensors: &[Vec<f32>]) -> Result<(), (usize, usize)> {
        let mut ours = self.tensors_mut();
        if ours.len() != tensors.len() {
            return Err((tensors.len(), ours.len()));
        }
        for (ours, theirs) in ours.iter_mut().zip(tensors) {
            if ours.len() != theirs.len() {
                return Err((theirs.len(), ours.len()));
            }
            ours.copy_from_slice(theirs);
        }
        Ok(())
    }

    /// In the order of [`Self::tensors`].
    fn tensors_mut(&mut self) -> Vec<&mut Vec<f32>> {
        let mut tensors = Vec::new();
        let layers = self.attribute_hidden.iter_mut().chain(&mut self.additional_hidden);
        for HiddenLayer { linear, norm } in layers {
            tensors.extend([&mut linear.weight, &mut linear.bias]);
            tensors.extend([&mut norm.gamma, &mut norm.beta, &mut norm.mean, &mut norm.variance]);
        }
        tensors.extend([
            &mut self.attribute_head.weight,
            &mut self.lstm_attributes,
            &mut self.lstm_condition,
            &mut self.lstm_noise,
            &mut self.lstm_hidden,
            &mut self.record_head.weight,
            &mut self.additional_head.weight,
            &mut self.attribute_head.bias,
            &mut self.lstm_bias,
            &mut self.record_head.bias,
            &mut self.additional_head.bias,
        ]);
        tensors.retain(|values| !values.is_empty());
        tensors
    }

    /// Every tensor with a name and a shape, for `weights.safetensors`.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, &[f32])> {
        fn matrix(
            name: impl Into<String>,
            values: &[f32],
            columns: usize,
        ) -> (String, Vec<usize>, &[f32]) {
            (name.into(), vec![values.len() / columns.max(1), columns], values)
        }
        let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
        let networks =
            [("attributes", &self.attribute_hidden), ("additional", &self.additional_hidden)];
        let layers = networks.into_iter().flat_map(|(network, layers)| {
            layers.iter().enumerate().map(move |(index, layer)| (network, index, layer))
        });
        for (network, index, layer) in layers {
            let (weight, bias) = (&layer.linear.weight, &layer.linear.bias);
            tensors.push(matrix(format!("{network}.{index}.weight"), weight, bias.len()));
            for (part, values) in [
                ("bias", bias),
                ("norm.gamma", &layer.norm.gamma),
                ("norm.beta", &layer.norm.beta),
                ("norm.mean", &layer.norm.mean),
                ("norm.variance", &layer.norm.variance),
            ] {
                tensors.push((format!("{network}.{index}.{part}"), vec![values.len()], values));
            }
        }
        let gates = self.lstm_bias.len();
        for (name, values, columns) in [
            ("attributes.head.weight", &self.attribute_head.weight, self.attribute_head.bias.len()),
            ("lstm.attributes", &self.lstm_attributes, gates),
            ("lstm.condition", &self.lstm_condition, gates),
            ("lstm.noise", &self.lstm_noise, gates),
            ("lstm.hidden", &self.lstm_hidden, gates),
            ("records.head.weight", &self.record_head.weight, self.record_head.bias.len()),
            (
                "additional.head.weight",
                &self.additional_head.weight,
                self.additional_head.bias.len(),
            ),
        ] {
            tensors.push(matrix(name, values, columns));
        }
        for (name, values) in [
            ("attributes.head.bias", &self.attribute_head.bias),
            ("lstm.bias", &self.lstm_bias),
            ("records.head.bias", &self.record_head.bias),
            ("additional.head.bias", &self.additional_head.bias),
        ] {
            tensors.push((name.to_owned(), vec![values.len()], values));
        }
        // Without additional attributes those two are empty.
        tensors.retain(|(_, _, values)| !values.is_empty());
        tensors
    }
}
