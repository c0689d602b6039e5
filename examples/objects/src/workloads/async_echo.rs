//! An echo server and its clients in one event loop, over queues in place of sockets.

use crate::{Layers, Runtime, Value};

const CLIENTS: usize = 25;
const MESSAGES: i64 = 900;

/// The slots of a conversation: what is on its way to the server, and to the client.
const TO_SERVER: usize = 0;
const TO_CLIENT: usize = 1;
const SENT: usize = 2;
const TOTAL: usize = 3;

/// The slots of a future.
const RESULT: usize = 0;

/// One turn of the loop's queue: a callback with its arguments in a tuple, and the future that it
/// resolves.
fn schedule<L: Layers>(ready: &Value<L>, callback: Value<L>, conversation: &Value<L>) -> Value<L> {
    let future = Value::from_instance([Value::None, Value::from_list([])]);
    let arguments = Value::from_tuple([conversation.clone(), future.clone()]);
    let handle = Value::from_instance([callback, arguments]);
    ready.list().push(handle);
    future
}

/// The client writes a line.
fn send<L: Layers>(runtime: &Runtime<L>, number: usize, conversation: &Value<L>) {
    let sent = conversation.instance().get(SENT);
    let line = format!("client {number} says {}\n", sent.int());
    conversation.instance().get(TO_SERVER).list().push(Value::from(&*line));
    conversation.instance().set(SENT, runtime.int(sent.int() + 1));
}

/// The server reads a line and answers.
fn echo<L: Layers>(conversation: &Value<L>, future: &Value<L>) {
    let line = conversation.instance().get(TO_SERVER).list().items_mut().remove(0);
    let upper = Value::from(&*line.text().to_ascii_uppercase());
    conversation.instance().get(TO_CLIENT).list().push(upper.clone());
    future.instance().set(RESULT, upper);
}

/// The client reads the answer.
fn receive<L: Layers>(runtime: &Runtime<L>, conversation: &Value<L>) {
    let answer = conversation.instance().get(TO_CLIENT).list().items_mut().remove(0);
    let sum: i64 = answer.text().bytes().map(i64::from).sum();
    let sum = runtime.int(runtime.int(sum).int() % 251);
    let total = conversation.instance().get(TOTAL);
    conversation.instance().set(TOTAL, runtime.int(total.int() + sum.int()));
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let ready = Value::from_list([]);
    let callback = Value::from("echo");
    let conversations = Value::from_list((0..CLIENTS).map(|_| {
        let queues = (Value::from_list([]), Value::from_list([]));
        Value::from_instance([queues.0, queues.1, runtime.int(0), runtime.int(0)])
    }));
    let mut total = 0;
    for _ in 0..MESSAGES {
        let futures = Value::from_list([]);
        for (number, conversation) in conversations.list().items().iter().enumerate() {
            send(runtime, number, conversation);
            futures.list().push(schedule(&ready, callback.clone(), conversation));
        }
        while !ready.list().is_empty() {
            let handle = ready.list().items_mut().remove(0);
            let arguments = handle.instance().get(1);
            echo(&arguments.tuple()[0], &arguments.tuple()[1]);
        }
        for conversation in conversations.list().items().iter() {
            receive(runtime, conversation);
        }
    }
    for conversation in conversations.list().items().iter() {
        total += conversation.instance().get(TOTAL).int();
    }
    format!("echoed {} checksum {total}", CLIENTS as i64 * MESSAGES)
}
