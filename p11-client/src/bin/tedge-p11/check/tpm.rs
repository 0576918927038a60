//! Whether a TPM has locked itself: TPM2_GetCapability, which needs no authorisation (TPM 2.0 Library part 3, 30.2).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const TIMEOUT: Duration = Duration::from_secs(3);

/// TPM_CAP_TPM_PROPERTIES from TPM_PT_PERMANENT on; all that is asked for lies behind it.
#[rustfmt::skip]
const GET_CAPABILITY: [u8; 22] = [
    0x80, 0x01,  0, 0, 0, 22,  0, 0, 0x01, 0x7A, // TPM_ST_NO_SESSIONS, the length, TPM_CC_GetCapability
    0, 0, 0, 6,  0, 0, 2, 0,  0, 0, 0, 0x20,     // TPM_CAP_TPM_PROPERTIES, TPM_PT_PERMANENT, at most 32
];
const PERMANENT: u32 = 0x200;
const COUNTER: u32 = 0x20E;
const MAX_TRIES: u32 = 0x20F;
const INTERVAL: u32 = 0x210;
/// Bit 9 of TPMA_PERMANENT: inLockout.
const IN_LOCKOUT: u32 = 1 << 9;

/// How a TPM counts wrong PINs.
#[derive(Debug, PartialEq, Eq)]
pub struct Lockout {
    pub is_locked: bool,
    pub wrong: u32,
    pub most: u32,
    /// After how many seconds it forgets one.
    pub interval: u32,
}

/// Asks the TPM that a TCTI of tpm2-tss leads to: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`.
///
/// # Errors
/// Why it cannot be asked.
pub fn lockout(tcti: Option<&str>) -> Result<Lockout, String> {
    let way = tcti
        .filter(|way| !way.is_empty())
        .unwrap_or("device:/dev/tpmrm0");
    let answer = if let Some(device) = way.strip_prefix("device:") {
        ask_device(device)
    } else if let Some(place) = way.strip_prefix("swtpm:") {
        ask_swtpm(place)
    } else {
        return Err(format!(
            "a TPM at {way} is not asked, only device: and swtpm: are"
        ));
    };
    let answer = answer.map_err(|error| format!("the TPM at {way} cannot be asked: {error}"))?;
    parse(&answer).ok_or_else(|| format!("the TPM at {way} gave no answer that is understood"))
}

/// The path comes from the server's environment, where anything may stand, and root writes to it.
fn ask_device(path: &str) -> io::Result<Vec<u8>> {
    let is_tpm = path
        .strip_prefix("/dev/tpm")
        .is_some_and(|rest| !rest.contains('/'));
    if !is_tpm || !fs::metadata(path)?.file_type().is_char_device() {
        return Err(io::Error::other("it is no device of a TPM"));
    }
    let mut device = OpenOptions::new().read(true).write(true).open(path)?;
    device.write_all(&GET_CAPABILITY)?;
    let mut ready = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(TIMEOUT).unwrap_or(PollTimeout::MAX);
    if poll(&mut ready, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut answer = vec![0; 4096];
    let length = device.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// It serves one program at a time.
fn ask_swtpm(place: &str) -> io::Result<Vec<u8>> {
    let part = |name: &str| place.split(',').find_map(|part| part.strip_prefix(name));
    let host = part("host=").unwrap_or("127.0.0.1");
    let port = part("port=").unwrap_or("2321");
    let address = format!("{host}:{port}").to_socket_addrs()?.next();
    let address = address.ok_or(io::ErrorKind::NotFound)?;
    let mut tpm = TcpStream::connect_timeout(&address, TIMEOUT)?;
    tpm.set_read_timeout(Some(TIMEOUT))?;
    tpm.write_all(&GET_CAPABILITY)?;
    let mut header = [0; 10];
    tpm.read_exact(&mut header)?;
    let [_, _, length @ .., _, _, _, _] = header;
    let length = u32::from_be_bytes(length).clamp(10, 4096) as usize;
    let mut answer = header.to_vec();
    answer.resize(length, 0);
    tpm.read_exact(answer.get_mut(10..).unwrap_or_default())?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Lockout> {
    let (header, rest) = answer.split_at_checked(10)?;
    // TPM_RC_SUCCESS
    if header.get(6..)? != [0; 4] {
        return None;
    }
    // moreData, the capability, and how many properties follow.
    let properties = rest.get(9..)?;
    let property = |wanted: u32| {
        let mut pairs = properties.chunks_exact(8).map(|pair| pair.split_at(4));
        let (_, value) = pairs.find(|(name, _)| *name == wanted.to_be_bytes())?;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    };
    Some(Lockout {
        is_locked: property(PERMANENT)? & IN_LOCKOUT != 0,
        wrong: property(COUNTER)?,
        most: property(MAX_TRIES)?,
        interval: property(INTERVAL)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_to_what_is_no_device_of_a_tpm() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        for path in [path.as_str(), "/dev/null", "/dev/tpm/../null"] {
            let why = lockout(Some(&format!("device:{path}"))).unwrap_err();
            assert!(why.ends_with("it is no device of a TPM"), "{why}");
        }
        assert_eq!(file.path().metadata().unwrap().len(), 0);
    }

    #[test]
    fn an_answer_is_read_and_half_of_one_is_none() {
        let mut answer = vec![
            0x80, 0x01, 0, 0, 0, 51, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 4,
        ];
        for (name, value) in [
            (PERMANENT, IN_LOCKOUT | 1),
            (COUNTER, 3),
            (MAX_TRIES, 3),
            (INTERVAL, 1000),
        ] {
            answer.extend(u32::to_be_bytes(name));
            answer.extend(u32::to_be_bytes(value));
        }
        let expected = Lockout {
            is_locked: true,
            wrong: 3,
            most: 3,
            interval: 1000,
        };
        assert_eq!(parse(&answer), Some(expected));
        for length in 0..answer.len() - 7 {
            assert_eq!(parse(&answer[..length]), None, "{length}");
        }
        answer[9] = 1;
        assert_eq!(parse(&answer), None, "an error of the TPM");
    }
}
