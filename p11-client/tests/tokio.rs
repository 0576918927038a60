//! With the feature `tokio` a slow token holds up its own task alone, on a runtime with one thread too.
#![cfg(test)]
#![cfg(feature = "tokio")]

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use p11_client::message::{OpenedKey, Pong, Request, Response, Signature};
use p11_client::spki::PublicKey;
use p11_client::{Client, Error, ErrorCode, Failure, Scheme, SigningKey};
use rustls::SignatureScheme;
use rustls::sign::SigningKey as _;

/// A token that signs when it is told to.
fn token() -> (Client, mpsc::Sender<()>) {
    let public = PublicKey::ed25519(&[1; 32]).unwrap();
    let (finish, finished) = mpsc::channel();
    let finished = Mutex::new(finished);
    let client = Client::with_transport(move |request: &Request| {
        Ok(match request {
            Request::Ping(_) => Response::Pong(Pong::new("a token", 1)),
            Request::OpenKey(_) => Response::Key(OpenedKey::new(
                "pkcs11:object=k",
                &public,
                [Scheme::Ed25519],
            )),
            Request::Sign(_) => {
                finished.lock().unwrap().recv().unwrap();
                Response::Signature(Signature::new(vec![1; 64]))
            }
            _ => Response::Error(Failure::new(ErrorCode::Unsupported, "not here")),
        })
    });
    (client, finish)
}

#[test]
fn the_runtime_goes_on_while_a_token_signs() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    let (client, finish) = token();
    runtime.block_on(async {
        let key = SigningKey::open_async(&client, "pkcs11:", None, None);
        let key = key.await.unwrap();
        let short = Duration::from_millis(50);
        let mut signing = std::pin::pin!(key.sign_async(Scheme::Ed25519, b"message"));
        // With the blocking method this would wait for ever.
        tokio::time::timeout(short, &mut signing).await.unwrap_err();
        assert_eq!(client.ping_async().await.unwrap().server, "a token");
        finish.send(()).unwrap();
        assert_eq!(signing.await.unwrap(), [1; 64]);
        assert_eq!(
            client.status_async().await.unwrap_err().code(),
            "Unsupported"
        );
    });
}

#[test]
fn the_runtime_goes_on_while_a_handshake_signs_on_a_thread_that_may_block() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    let (client, finish) = token();
    runtime.block_on(async {
        let runtime = tokio::runtime::Handle::current();
        // As the documentation of the crate tells, with this in place of tokio-rustls' connect.
        let handshake = async move {
            let key = SigningKey::open(&client, "pkcs11:", None, None).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            let signer = key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
            signer.sign(b"message").unwrap()
        };
        let mut connecting = tokio::task::spawn_blocking(move || runtime.block_on(handshake));
        let short = Duration::from_millis(50);
        tokio::time::timeout(short, &mut connecting)
            .await
            .unwrap_err();
        finish.send(()).unwrap();
        assert_eq!(connecting.await.unwrap(), [1; 64]);
    });
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let (client, _finish) = token();
    let mut ping = std::pin::pin!(client.ping_async());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = ping.as_mut().poll(&mut context);
    assert!(matches!(
        polled,
        std::task::Poll::Ready(Err(Error::NoRuntime))
    ));
}
