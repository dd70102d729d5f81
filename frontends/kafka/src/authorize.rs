//! The one place at which a client's right to something is asked for.
//!
//! Until principals and access rules exist every client may do everything, as on a Kafka broker without an authorizer. Handlers ask here
//! already, so that rules need no change in them.
//!
//! Knows nothing of connections.

/// What a client wants to do; numbers are those of Kafka's AclOperation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

/// To what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
}

impl Resource<'_> {
    /// The operations that mean something for such a resource.
    fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Resource::Topic(_) => &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs],
            Resource::Group(_) => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Resource::Cluster => &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite],
        }
    }
}

/// Whether it is allowed.
pub fn is_allowed(operation: Operation, resource: Resource<'_>) -> bool {
    resource.operations().contains(&operation)
}

/// Everything that is allowed, as the bit field that answers carry (bit n is operation n).
pub fn allowed_operations(resource: Resource<'_>) -> i32 {
    let allowed = resource.operations().iter().filter(|operation| is_allowed(**operation, resource));
    allowed.fold(0, |bits, operation| bits | 1 << (*operation as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_of_a_broker_without_authorizer() {
        assert_eq!(allowed_operations(Resource::Topic("t")), 3576);
        assert_eq!(allowed_operations(Resource::Cluster), 8096);
        assert_eq!(allowed_operations(Resource::Group("g")), 3400);
    }
}
