//! Requests about the broker and the cluster themselves.

message! {
    /// Key 18.
    ApiVersionsRequest<'a> {
        client_software_name: &'a str [3..];
        client_software_version: &'a str [3..];
        /// The cluster that the client means to reach, if it knows (KIP-1242).
        cluster_id: Option<&'a str> [5..] null [5..];
        /// The node that the client means to reach; -1 if it does not know.
        node_id: i32 [5..] = -1;
    }

    /// Key 60.
    DescribeClusterRequest {
        include_cluster_authorized_operations: bool [0..];
        /// 1 brokers, 2 controllers.
        endpoint_type: i8 [1..] = 1;
        include_fenced_brokers: bool [2..];
    }
}
