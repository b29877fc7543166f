// SPDX-License-Identifier: GPL-2.0

//! Our words on the kernel command line: `luo.stage=N` and `luo.carry=KEY:HEX,KEY:HEX`.

use crate::hex::{from_hex, hex};
use std::collections::BTreeMap;

/// What one kernel tells the next.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Words {
    /// Which kernel of the chain this is, from 1.
    pub stage: usize,
    /// Small strings carried from stage to stage.
    pub carry: BTreeMap<String, String>,
}

impl Words {
    /// Reads them from this kernel's command line.
    pub fn of_this_kernel() -> std::io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/cmdline")?))
    }

    /// Reads them from a command line.
    pub fn parse(cmdline: &str) -> Self {
        let mut words = Self {
            stage: 1,
            carry: BTreeMap::new(),
        };
        for word in cmdline.split_whitespace() {
            if let Some(n) = word.strip_prefix("luo.stage=") {
                words.stage = n.parse().unwrap_or(1);
            } else if let Some(list) = word.strip_prefix("luo.carry=") {
                words.carry = list.split(',').filter_map(parse_pair).collect();
            }
        }
        words
    }

    /// The words to add to the next kernel's command line.
    pub fn to_cmdline(&self) -> String {
        let mut line = format!("luo.stage={}", self.stage);
        for (i, (key, value)) in self.carry.iter().enumerate() {
            line.push_str(if i == 0 { " luo.carry=" } else { "," });
            line.push_str(key);
            line.push(':');
            line.push_str(&hex(value.as_bytes()));
        }
        line
    }
}

fn parse_pair(pair: &str) -> Option<(String, String)> {
    let (key, hex) = pair.split_once(':')?;
    Some((key.into(), String::from_utf8(from_hex(hex)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_command_line() {
        let mut carry = BTreeMap::new();
        carry.insert("sum".to_string(), "a b=c,d:é".to_string());
        carry.insert("empty".to_string(), String::new());
        let words = Words { stage: 3, carry };
        let line = format!("console=ttyS0 {} quiet", words.to_cmdline());
        assert_eq!(Words::parse(&line), words);
    }

    #[test]
    fn a_first_boot_is_stage_one() {
        assert_eq!(
            Words::parse("console=ttyS0"),
            Words {
                stage: 1,
                carry: BTreeMap::new()
            }
        );
    }
}
