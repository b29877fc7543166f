// SPDX-License-Identifier: GPL-2.0

//! Writes initramfs images.
//!
//! The kernel unpacks several archives put one after the other, so what all VMs share is packed once and each VM's
//! plan follows in an archive of its own.

use anyhow::{Context, Result};
use cpio::newc::{self, Builder, ModeFileType};
use std::path::Path;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        let entry = self.entry(name, ModeFileType::Directory, 0o755).nlink(2);
        self.write(entry, &[])
    }

    /// Adds a file with this content.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let entry = self.entry(name, ModeFileType::Regular, mode);
        self.write(entry, content)
    }

    /// Adds a copy of a file of the host.
    pub fn copy(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| from.display().to_string())?;
        self.file(name, mode, &content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let entry = self.entry(name, ModeFileType::Symlink, 0o777);
        self.write(entry, target.as_bytes())
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        let entry = self.entry(name, ModeFileType::Char, 0o600);
        self.write(entry.rdev_major(major).rdev_minor(minor), &[])
    }

    /// The finished archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        newc::trailer(&mut self.bytes)?;
        // The next archive must begin on a multiple of four.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32) -> Builder {
        self.inodes += 1;
        Builder::new(name)
            .ino(self.inodes)
            .mode(mode)
            .set_mode_file_type(kind)
    }

    fn write(&mut self, entry: Builder, content: &[u8]) -> Result<()> {
        let mut writer = entry.write(&mut self.bytes, u32::try_from(content.len())?);
        std::io::Write::write_all(&mut writer, content)?;
        writer.finish()?;
        Ok(())
    }
}
