//! The image of pause containers, which hold network sandboxes, built in memory. Pure.
//!
//! A network namespace lives as long as a process in it. The cheapest such process is a static ELF
//! program of 129 bytes that calls `pause(2)` in a loop. Building it here means that a node needs
//! no registry, compiler or extra file.
//!
//! ```text
//!   offset   0  ELF64 header        System V ABI, gABI chapter 4
//!           64  one program header  PT_LOAD: the whole file, readable and executable
//!          120  code                entry: mov eax, 34 (pause); syscall; jmp entry
//! ```
//!
//! As process 1 of its container the program has no signal handlers, so the kernel delivers only
//! SIGKILL from outside. It cannot be stopped, only removed by force, which is immediate.
//!
//! The image's tag is a hash of its content: nodes that share an engine share the image, and a
//! release with another program uses another tag.

use std::io;

use sha2::{Digest as _, Sha256};

/// Repository of the image.
const REPOSITORY: &str = "cless-pause";

/// The only supported architecture, as named by the engine (`GOARCH`).
pub(super) const ARCHITECTURE: &str = "amd64";

/// Load address: the usual one of static x86-64 programs, above `vm.mmap_min_addr`.
const LOAD_ADDRESS: u64 = 0x40_0000;

/// `e_ehsize` and `e_phentsize` of ELF64.
const HEADER_BYTES: u16 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;

/// `mov eax, 34` (pause on x86-64), `syscall`, and a jump back by nine bytes: `pause` returns after
/// the process is stopped and continued.
const CODE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// Name, content and configuration of the image.
pub(super) struct PauseImage {
    /// The repository.
    pub(super) repository: &'static str,
    /// Hash of the content.
    pub(super) tag: String,
    /// The file system as a tar archive.
    pub(super) tar: Vec<u8>,
}

/// Dockerfile instructions applied on import.
pub(super) const CHANGES: [&str; 2] = [r#"ENTRYPOINT ["/pause"]"#, "LABEL cless.role=sandbox"];

impl PauseImage {
    /// Builds the image.
    ///
    /// # Errors
    /// None in practice: the archive is written to memory.
    pub(super) fn build() -> io::Result<Self> {
        let program = program();
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o555);
        header.set_size(program.len() as u64);
        // Owner, group and time stay 0, so that equal programs yield equal images.
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "pause", program.as_slice())?;
        let tar = builder.into_inner()?;
        let hash = Sha256::new()
            .chain_update(&tar)
            .chain_update(CHANGES.join("\n"))
            .finalize();
        Ok(Self {
            repository: REPOSITORY,
            tag: hash[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
            tar,
        })
    }

    /// `repository:tag`.
    pub(super) fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// The program; the module documentation shows its layout.
fn program() -> Vec<u8> {
    let code_offset = u64::from(HEADER_BYTES) + u64::from(PROGRAM_HEADER_BYTES);
    let size = code_offset + CODE.len() as u64;
    let entry = LOAD_ADDRESS + code_offset;
    let mut elf = Vec::new();
    // e_ident: magic, 64-bit, little-endian, version 1, System V, padding.
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    elf.extend([0; 8]);
    half(&mut elf, 2); // e_type: ET_EXEC
    half(&mut elf, 62); // e_machine: EM_X86_64
    word(&mut elf, 1); // e_version
    long(&mut elf, entry); // e_entry
    long(&mut elf, u64::from(HEADER_BYTES)); // e_phoff: directly after this header
    long(&mut elf, 0); // e_shoff: no sections
    word(&mut elf, 0); // e_flags
    half(&mut elf, HEADER_BYTES); // e_ehsize
    half(&mut elf, PROGRAM_HEADER_BYTES); // e_phentsize
    half(&mut elf, 1); // e_phnum
    half(&mut elf, 0); // e_shentsize
    half(&mut elf, 0); // e_shnum
    half(&mut elf, 0); // e_shstrndx

    word(&mut elf, 1); // p_type: PT_LOAD
    word(&mut elf, 4 | 1); // p_flags: PF_R | PF_X
    long(&mut elf, 0); // p_offset: the headers are loaded with the code
    long(&mut elf, LOAD_ADDRESS); // p_vaddr
    long(&mut elf, LOAD_ADDRESS); // p_paddr: not used
    long(&mut elf, size); // p_filesz
    long(&mut elf, size); // p_memsz
    long(&mut elf, 0x1000); // p_align: a page

    elf.extend(CODE);
    elf
}

/// An ELF half word: 16 bits, little-endian.
fn half(elf: &mut Vec<u8>, value: u16) {
    elf.extend(value.to_le_bytes());
}

/// An ELF word: 32 bits.
fn word(elf: &mut Vec<u8>, value: u32) {
    elf.extend(value.to_le_bytes());
}

/// An ELF extended word, address or offset: 64 bits.
fn long(elf: &mut Vec<u8>, value: u64) {
    elf.extend(value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(wide)
    }

    #[test]
    fn the_program_is_a_static_x86_64_elf_of_a_few_bytes() {
        let elf = program();
        assert!(elf.len() < 512, "{} bytes", elf.len());
        assert_eq!(elf[..4], *b"\x7fELF");
        assert_eq!(elf[4..7], [2, 1, 1], "64-bit, little-endian, version 1");
        assert_eq!(number(&elf, 16, 2), 2, "an executable");
        assert_eq!(number(&elf, 18, 2), 62, "for x86-64");
        assert_eq!(number(&elf, 32, 8), 64, "the program header follows");
        assert_eq!(
            number(&elf, 56, 2),
            1,
            "and is the only one: no interpreter"
        );
    }

    #[test]
    fn its_one_segment_holds_the_whole_file_and_the_entry_is_its_code() {
        let elf = program();
        let (kind, flags) = (number(&elf, 64, 4), number(&elf, 68, 4));
        assert_eq!((kind, flags), (1, 5), "loaded, and never writable");
        let (offset, address) = (number(&elf, 72, 8), number(&elf, 80, 8));
        let (in_file, in_memory) = (number(&elf, 96, 8), number(&elf, 104, 8));
        assert_eq!((in_file, in_memory), (elf.len() as u64, elf.len() as u64));
        let align = number(&elf, 112, 8);
        assert_eq!(offset % align, address % align, "as the ABI requires");
        let entry = usize::try_from(number(&elf, 24, 8) - address + offset).unwrap();
        assert_eq!(elf[entry..], CODE);
    }

    #[test]
    fn its_code_ends_with_a_jump_back_to_its_first_byte() {
        let [.., jump, back] = CODE;
        assert_eq!(jump, 0xeb, "jmp rel8");
        assert_eq!(i64::from(back.cast_signed()), -(CODE.len() as i64));
    }

    #[test]
    fn the_image_is_one_executable_file_and_is_the_same_each_time() {
        let image = PauseImage::build().unwrap();
        assert_eq!(image.tar, PauseImage::build().unwrap().tar);
        assert!(image.reference().starts_with("cless-pause:"));
        assert_eq!(image.tag.len(), 16);
        let mut archive = tar::Archive::new(image.tar.as_slice());
        let mut files = archive.entries().unwrap();
        let mut file = files.next().unwrap().unwrap();
        assert_eq!(file.path().unwrap().to_str(), Some("pause"));
        assert_eq!(file.header().mode().unwrap(), 0o555);
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, program());
        assert!(files.next().is_none());
    }
}
