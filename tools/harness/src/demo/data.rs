// SPDX-License-Identifier: GPL-2.0

//! The demonstration's data: real files, as a tar archive that the VM sees as a disk.

use anyhow::{ensure, Context, Result};
use luo_vm_protocol::demo::MANIFEST;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// How much of it there is.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Packs a file or a folder. The manifest of sums, taken from the files as they lie here, comes first in the archive.
pub fn pack(data: &Path, archive: &Path) -> Result<Amount> {
    ensure!(data.exists(), "there is no {}", data.display());
    let files = files(data)?;
    ensure!(!files.is_empty(), "{} has no files", data.display());
    let mut manifest = String::new();
    let mut bytes = 0;
    for (path, name) in &files {
        let content = std::fs::read(path).with_context(|| path.display().to_string())?;
        bytes += content.len() as u64;
        for byte in Sha256::digest(&content) {
            write!(manifest, "{byte:02x}")?;
        }
        writeln!(manifest, "  {name}")?;
    }
    let file = File::create(archive).with_context(|| archive.display().to_string())?;
    let mut builder = tar::Builder::new(BufWriter::new(file));
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, MANIFEST, manifest.as_bytes())?;
    for (path, name) in &files {
        builder
            .append_path_with_name(path, name)
            .with_context(|| path.display().to_string())?;
    }
    builder.into_inner()?.flush()?;
    Ok(Amount {
        files: files.len() as u64,
        bytes,
    })
}

/// All regular files, each with its name in the archive, in order. Links and names that are not UTF-8 are left out.
fn files(data: &Path) -> Result<Vec<(PathBuf, String)>> {
    let top = if data.is_dir() {
        data
    } else {
        data.parent().unwrap_or(Path::new(""))
    };
    let mut files = Vec::new();
    for entry in WalkDir::new(data).sort_by_file_name() {
        let entry = entry?;
        let name = entry
            .path()
            .strip_prefix(top)?
            .to_str()
            .filter(|name| !name.contains('\n'));
        if let (true, Some(name)) = (entry.file_type().is_file(), name) {
            files.push((entry.path().to_path_buf(), name.to_string()));
        }
    }
    Ok(files)
}
