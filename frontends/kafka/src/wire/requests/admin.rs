//! Requests about settings, data directories, producers and rights.

message! {
    /// Key 32.
    DescribeConfigsRequest<'a> {
        resources: Vec<DescribeConfigsResource<'a>> [0..];
        include_synonyms: bool [1..];
        include_documentation: bool [3..];
    }

    DescribeConfigsResource<'a> {
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8 [0..];
        resource_name: &'a str [0..];
        /// None is every key.
        configuration_keys: Option<Vec<&'a str>> [0..] null [0..];
    }

    /// Key 33.
    AlterConfigsRequest<'a> {
        resources: Vec<AlterConfigsResource<'a>> [0..];
        validate_only: bool [0..];
    }

    AlterConfigsResource<'a> {
        resource_type: i8 [0..];
        resource_name: &'a str [0..];
        configs: Vec<AlterableConfig<'a>> [0..];
    }

    AlterableConfig<'a> {
        name: &'a str [0..];
        value: Option<&'a str> [0..] null [0..];
    }

    /// Key 44.
    IncrementalAlterConfigsRequest<'a> {
        resources: Vec<IncrementalAlterConfigsResource<'a>> [0..];
        validate_only: bool [0..];
    }

    IncrementalAlterConfigsResource<'a> {
        resource_type: i8 [0..];
        resource_name: &'a str [0..];
        configs: Vec<IncrementalAlterableConfig<'a>> [0..];
    }

    IncrementalAlterableConfig<'a> {
        name: &'a str [0..];
        /// 0 set, 1 delete, 2 append, 3 subtract.
        config_operation: i8 [0..];
        value: Option<&'a str> [0..] null [0..];
    }

    /// Key 74.
    ListConfigResourcesRequest {
        /// Empty is every type that is supported; version 0 knows client metrics alone.
        resource_types: Vec<i8> [1..];
    }

    /// Key 35.
    DescribeLogDirsRequest<'a> {
        /// None is every topic.
        topics: Option<Vec<DescribableLogDirTopic<'a>>> [0..] null [0..] = Some(Vec::new());
    }

    DescribableLogDirTopic<'a> {
        topic: &'a str [0..];
        partitions: Vec<i32> [0..];
    }

    /// Key 61.
    DescribeProducersRequest<'a> {
        topics: Vec<DescribeProducersTopic<'a>> [0..];
    }

    DescribeProducersTopic<'a> {
        name: &'a str [0..];
        partition_indexes: Vec<i32> [0..];
    }

    /// Key 29.
    DescribeAclsRequest<'a> {
        resource_type_filter: i8 [0..];
        resource_name_filter: Option<&'a str> [0..] null [0..];
        pattern_type_filter: i8 [1..] = 3;
        principal_filter: Option<&'a str> [0..] null [0..];
        host_filter: Option<&'a str> [0..] null [0..];
        operation: i8 [0..];
        permission_type: i8 [0..];
    }
}
