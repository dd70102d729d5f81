//! A client outside of all nodes, in a world.

use super::core::Core;
use super::network::{Arrival, End};
use crate::driver::IoError;
use std::cell::RefCell;
use std::rc::Rc;

/// One end of a connection to a node. Dropping it closes it.
pub struct ClientEnd {
    core: Rc<RefCell<Core>>,
    end: End,
    open: bool,
}

impl ClientEnd {
    pub(super) fn new(core: &Rc<RefCell<Core>>, connection: u64) -> ClientEnd {
        ClientEnd { core: Rc::clone(core), end: End { connection, side: 1 }, open: true }
    }

    /// Bytes taken; 0 when the way is full now.
    ///
    /// # Errors
    /// RESET once when the peer is gone or never was, then EPIPE.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, IoError> {
        let mut core = self.core.borrow_mut();
        core.try_send(self.end, &[bytes]).map_or(Ok(0), |result| result.map(|count| count as usize))
    }

    /// All that has arrived. None: nothing now. Empty: the peer has finished.
    ///
    /// # Errors
    /// RESET once when the peer is gone or never was; then the end.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>, IoError> {
        let mut core = self.core.borrow_mut();
        let side = core.network.side(self.end).expect("a connection stays while an end is open");
        if side.reset {
            return if std::mem::replace(&mut side.told, true) { Ok(Some(Vec::new())) } else { Err(IoError::RESET) };
        }
        if side.arrived.is_empty() {
            return Ok(side.ended.then(Vec::new));
        }
        let bytes = std::mem::take(&mut side.arrived).into();
        core.tell_owner(self.end.other());
        Ok(Some(bytes))
    }

    /// Sends no more; still receives.
    pub fn finish(&mut self) {
        let mut core = self.core.borrow_mut();
        let side = core.network.side(self.end).expect("a connection stays while an end is open");
        if !std::mem::replace(&mut side.finished, true) {
            core.send_to(self.end.other(), Arrival::Finish);
        }
    }

    /// Goes without a word of what was unread or unsent: the peer is reset.
    pub fn reset(mut self) {
        self.open = false;
        self.core.borrow_mut().close_end(self.end, true);
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        if self.open {
            self.core.borrow_mut().close_end(self.end, false);
        }
    }
}
