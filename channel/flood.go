package channel

const floodPublish = false
